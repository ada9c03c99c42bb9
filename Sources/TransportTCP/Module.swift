enum TransportTCPModule {}
