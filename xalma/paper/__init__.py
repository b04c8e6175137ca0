"""What this repository's notebooks print and nobody else needs: tables, reports, cards."""
