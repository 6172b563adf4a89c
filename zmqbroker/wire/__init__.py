"""What travels: frames to messages and back, for every role. Pure: no socket, no clock."""
