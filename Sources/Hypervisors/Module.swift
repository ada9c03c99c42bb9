enum HypervisorsModule {}
