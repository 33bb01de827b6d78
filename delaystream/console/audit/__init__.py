"""Who did what: the audit log in SQL.

Everything that a console changes goes through it, in one of three ways:

- What is sent to Kafka goes through `delaystream.console.writing.service.Writing`, which stores an entry
  before it sends, and what came of it after. Nothing else is needed but `Asked.who`: `Conditions` has that of
  the request; work in the background keeps `Caller.who` with it, and makes its `Asked` of that.
- What changes only the console's own tables (a mark on a dead letter, an operation's end) calls
  `AuditLog.note` with the connection of its own transaction: both are stored, or none.
- Every other request that is not safe (RFC 9110, section 9.2.1) is recorded when it is answered, refused or
  not, by `recording.Recording`: nobody can forget it.
"""
