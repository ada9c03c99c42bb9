enum TurntableCoreModule {}
