"""`delaystream dev`: a real Kafka, a worker, a console and samples in one terminal."""
