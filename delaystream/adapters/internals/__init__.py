"""What is private in aiokafka and Faust, and used all the same; the versions that it was tried with."""
