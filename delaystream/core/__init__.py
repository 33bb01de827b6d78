"""Pure decisions and their types: no I/O, and no clock but the time that is passed in."""
