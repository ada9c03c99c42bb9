enum ControlShimModule {}
