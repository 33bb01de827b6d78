"""People sign in: sessions in SQL, and a provider of identities (OpenID Connect)."""
