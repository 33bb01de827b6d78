"""The private parts of aiokafka and Faust that delaystream uses, and the versions they were tested with."""
