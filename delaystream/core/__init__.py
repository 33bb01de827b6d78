"""Pure decisions and their types: no I/O and no clock. Time is an argument."""
