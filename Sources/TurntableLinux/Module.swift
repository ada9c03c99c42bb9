enum TurntableLinuxModule {}
