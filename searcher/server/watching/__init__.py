"""What a server tells those who watch it: the recall of its searches, and a line for each request."""
