"""Who is champion, since when, and why: registry, ledger, promotion, rollback and the git tag of a promoted model."""
