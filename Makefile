# What a stranger needs: `make demo` and `make test`. Both install what they need on Debian 12 with Swift 6.3.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BUILD := .build/release
DEBUG := .build/debug
PRELOAD := libturntable-ram.so
CFLAGS_PRELOAD := -ICShims/CTurntableLinux/include -O2 -Wall -Wextra -Werror -shared -fPIC

.PHONY: help packages build guest lab lab-xen lab-xen-pv demo demo-lvm demo-rdma demo-xen demo-sites test bench fuzz model simulate clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

packages: ## the Debian packages that building, testing and the demo need
	@perf/packages

build: packages ## release programs, and the library that is preloaded into QEMU, in .build/release
	swift build -c release --product turntable
	swift build -c release --product turntable-lightpath
	swift build -c release --product turntable-lvm-helper
	swift build -c release --product turntable-xen-helper
	swift build -c release --product turntable-xen
	swift build -c release --product turntable-orchestrator
	swift build -c release --product turntable-gateway
	$(CC) $(CFLAGS_PRELOAD) CShims/TurntableRAM/turntable_ram.c -o $(BUILD)/$(PRELOAD)

guest: packages ## the guests that are moved in tests and demo, in .cache/guest
	perf/guest/build

lab: packages ## the laboratory: machines with device-mapper, RDMA and netem (perf/lab), in .cache/guest
	perf/guest/build

demo: build guest ## a Linux machine moves with its disk there and back over a 1 Gb/s, 175 ms line while it works
	$(BUILD)/turntable demo

demo-lvm: build lab ## the same with a disk that is a logical volume, in the laboratory
	perf/demo-lvm

demo-rdma: build lab ## a machine moves over RDMA and over TCP, in two machines of the laboratory: a minute; ends with a line of JSON
	Tests/RDMA/run demo

lab-xen: packages ## a pair of real Xen hosts under emulation (perf/xenlab), in .cache/xenlab
	perf/xenlab/build

lab-xen-pv: packages ## the same with a Xen that PV guests move on, from Debian's source package: two minutes
	perf/xenlab/build pv

demo-xen: build lab-xen ## a PVH guest moves between two real Xen hosts, by Xen's own helper and by ours, near and far; ends with a line of JSON
	Tests/XenTests/run --demo

demo-sites: build guest ## a machine keeps its address and its TCP session between two sites; orchestrator, tokens, lightpaths, gateways: half a minute
	perf/demo-sites

test: build guest ## every test: units, conformance, fuzz corpus, model, simulation, real QEMU machines, instruments
	perf/test

bench: build guest ## the benchmarks of docs/performance.md, side by side with the alternatives
	swift build -c release --product turntable-scan-benchmark
	swift build -c release --product turntable-stream-benchmark
	perf/bench/all

fuzz: ## the decoders under libFuzzer; SECONDS_EACH=60
	perf/fuzz/run $(or $(SECONDS_EACH),60)

model: packages ## the model of the hand-off, checked by spin; and the mistakes that it must find
	docs/model/check

simulate: packages ## the engine in a world where everything fails, and whether its promises hold; SEEDS=10000
	swift build -c release --product turntable-simulate
	$(BUILD)/turntable-simulate --seeds $(or $(SEEDS),10000)

clean: ## everything that was built
	rm -rf .build .cache
