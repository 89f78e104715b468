"""What private releases cost: events, the ledger, epsilon, calibration. No noise is drawn here."""
