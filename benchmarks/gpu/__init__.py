"""What a GPU adds and whether its vectors are the CPU's: steps for a machine that is lent for minutes."""
