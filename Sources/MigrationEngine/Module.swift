enum MigrationEngineModule {}
