#!/bin/sh
# What the workers do: a task is the name of a file, and its result how many different words there are in it.
# The task comes on stdin. What is printed is the result; a status other than 0, and the last line on stderr, a failure.

IFS= read -r file
if ! [ -r "$file" ]; then
    echo "$file cannot be read" >&2
    exit 1
fi
words=$(tr -cs '[:alpha:]' '\n' <"$file" | sort -u | wc -l)
echo "$words $file"
