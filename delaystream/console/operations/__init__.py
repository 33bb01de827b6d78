"""Operations on many: what matches is frozen, then changed one by one at a bounded rate, and undone."""
