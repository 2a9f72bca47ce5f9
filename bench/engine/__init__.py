"""How many streams an engine carries, how fast it answers them, and whether they still say what each would alone."""
