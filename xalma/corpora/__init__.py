"""What text there is: monolingual text, sentence pairs and test sets, streamed with the place each row came from."""
