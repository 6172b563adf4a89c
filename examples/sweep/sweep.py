"""A parameter sweep: `sweep.py REQUESTS` finds the best parameters of a classifier, each try by one of the workers."""

import sys

import backend  # noqa: F401 (has joblib know the broker)
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

PARAMETERS = {"C": [0.1, 1, 10], "gamma": [0.0001, 0.001, 0.01]}


def main(requests: str) -> None:
    """Print the best parameters, and how good they are."""
    digits = load_digits()
    search = GridSearchCV(SVC(), PARAMETERS, cv=3)
    with parallel_config("zmqbroker", address=requests, tries=3):
        search.fit(digits.data, digits.target)
    print(f"{len(search.cv_results_['params'])} sets of parameters, the best: {search.best_params_}")
    print(f"right in {search.best_score_:.1%} of the cases")


main(sys.argv[1])
