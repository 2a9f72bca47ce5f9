"""What a person waits for in the browser: from the mouth to the screen (python -m bench.browser --help)."""
