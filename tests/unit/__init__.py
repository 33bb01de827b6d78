"""One thing at a time: without a broker, in virtual time wherever time matters."""
