/// Every length that a peer can name and every queue, loop and wait that could grow, in one place.
public enum Limits {
    /// Extents in one data frame. With ``framePayloadBytes`` this lets a frame hold 256 scattered pages or one run of them.
    public static let frameExtents = 256
    /// Page bytes, or device-state bytes, in one data frame.
    public static let framePayloadBytes = 1 << 20
    /// Pages in one stripe of memory: what a stream owns as a unit, so that no page ever travels on two streams.
    public static let stripePages = framePayloadBytes / pageBytes
    /// Body of one control message.
    public static let controlBodyBytes = 1 << 20
    /// Memory regions of a machine.
    public static let regions = 64
    /// Pages of one region: 16 TiB.
    public static let regionPages = 1 << 32
    /// Bytes of a region's name, and of a machine's.
    public static let nameBytes = 128
    /// Bytes of the machine description in an offer.
    public static let descriptionBytes = 256 << 10
    /// Bytes of a reason or an error text from the peer.
    public static let reasonBytes = 4096
    /// Data streams of one migration.
    public static let streams = 16
    /// Device state of a machine: everything the hypervisor saves that is not RAM.
    public static let deviceStateBytes = 64 << 20
    /// Rounds of pre-copy before a migration that does not converge is refused.
    public static let rounds = 64
    /// Attempts to pause within the budget; each that turns out too long lets the machine run on.
    public static let pauseAttempts = 3
    /// Ranges fetched by one dirty scan call.
    public static let scanRegions = 4096
    /// Pages whose entries in a page map are read by one call: 512 MiB of memory.
    public static let pagemapEntries = 1 << 17
    /// Bytes of one stream that open its window while the target prepares.
    public static let warmUpBytes = 32 << 20
    /// Migrations that one receiver prepares at once.
    public static let sessions = 64

    /// Frames of one stream that are sealed under one key, at most 256 GiB: well below what AES-GCM bears (RFC 8446, 5.5, scaled).
    public static let framesPerKey: UInt64 = 1 << 18
    /// Bytes of a file with keys or certificates.
    public static let keyFileBytes = 256 << 10
    /// Bytes of a host's name in its certificate.
    public static let hostNameBytes = 64
    /// Links of a token, and its bytes.
    public static let tokenLinks = 8
    public static let tokenBytes = 8 << 10
    /// Bytes of a domain's policy.
    public static let policyBytes = 256 << 10
    /// Link elements on one way, the bytes of a pass for them, and those of its signature with the certificate.
    public static let linkElements = 8
    public static let linkPassBytes = 16 << 10
    public static let linkSignatureBytes = 4 << 10
    /// Bytes of an address in a pass.
    public static let linkAddressBytes = 262
    /// Connections through one link element.
    public static let linkConnections = 1024
    /// What a control stream carries through one, each way: far more than any migration says.
    public static let linkControlBytes = 1 << 30
    /// A connection on which nothing came for so long is nobody's.
    public static let linkIdleTime = Nanoseconds.seconds(900)
    /// A token that an orchestrator issues is valid for this long; hosts' clocks may differ by a little.
    public static let tokenTime = Nanoseconds.seconds(24 * 3600)
    public static let tokenClockDifference = Nanoseconds.seconds(60)
    /// A Web client's token, and how long it may be valid: nothing revokes it before.
    public static let webTokenBytes = 4 << 10
    public static let webTokenTime = Nanoseconds.seconds(24 * 3600)

    /// Control messages from a peer that nobody has read yet, at most; then the connection is not read.
    public static let unreadControlBytes = 4 << 20

    /// A peer that connects says what it wants within this time.
    public static let helloTime = Nanoseconds.seconds(10)
    /// The target starts the machine's shell and prepares its memory within this time.
    public static let prepareTime = Nanoseconds.seconds(120)
    /// A target that says it is not ready to run the machine is waited for this long: libxl gives a device's script 40 s.
    public static let readinessTime = Nanoseconds.seconds(60)
    /// A stream on which bytes are due and none moved for this long is dead.
    public static let stallTime = Nanoseconds.seconds(30)
    /// A hypervisor answers a command within this time.
    public static let hypervisorTime = Nanoseconds.seconds(30)
    /// How often the source asks the target whether it is there, which also measures the round trip.
    public static let heartbeatTime = Nanoseconds.milliseconds(500)
    /// After the hand-off the target says that it runs within this time; then the source reports that it does not know.
    public static let commitTime = Nanoseconds.seconds(60)
    /// A cut line is waited for this long, unless somebody says otherwise.
    public static let resumeWindow = Nanoseconds.seconds(300)
    /// The longest resume window that a target grants: it holds the machine's memory all that time.
    public static let longestResumeWindow = Nanoseconds.seconds(24 * 3600)
    /// Between two rounds the source lets what its streams hold go out for this long.
    public static let letOutTime = Nanoseconds.seconds(2)
    /// When a stream ends, its peer's reason may still be on its way on the control stream for this long.
    public static let lastWordTime = Nanoseconds.milliseconds(500)
    /// Connections at a receiver that have not said what they want yet.
    public static let greetings = 64
    /// How often a receiver looks for one that has.
    public static let greetingPollTime = Nanoseconds.milliseconds(5)
    /// How often a waiting thread looks whether it was cancelled.
    public static let pollTime = Nanoseconds.milliseconds(100)

    /// Memory that this process pins for RDMA at once, whatever the machine's size.
    public static let pinnedBytes = 256 << 20
    /// Queue pairs of one data stream, and of all together.
    public static let queuePairs = 64
    /// Frames of one data stream over RDMA that the target has not taken yet.
    public static let verbsFrames = 64
    /// Stripes that one frame asks the target's registration for.
    public static let grantsPerFrame = 32
    /// Writes of one queue pair that are under way.
    public static let queuedWrites = 192
    /// A request over RDMA that is not acknowledged is sent again so many times; seven means without end.
    public static let verbsRetries = 6

    /// Chunks of one disk: 16 TiB in chunks of 4 KiB.
    public static let diskChunks = 1 << 32
    /// Bytes of one disk: 16 TiB.
    public static let diskBytes = diskChunks * pageBytes
    /// Chunks that a hypervisor's dirty bitmap has: 2 MiB of bits, read in a few milliseconds while the machine stands still.
    public static let bitmapChunks = 1 << 24
    /// Chunk sizes of a snapshot; also how much of its store is read at once.
    public static let snapshotChunkBytes = 4 << 10...16 << 20
    /// Bytes of a disk that are read or written by one call.
    public static let blockExtentBytes = 1 << 20
    /// Writes to a disk that wait or are under way.
    public static let blockWrites = 16
    /// Threads that write to a disk.
    public static let blockWriters = 4
    /// Passes over a disk before its writer must stop.
    public static let diskPasses = 32
    /// Passes over a whole disk because its snapshot overflowed, before it is given up.
    public static let lostDeltas = 3
    /// One line of what the tools of thin provisioning, or the LVM helper, say.
    public static let toolLineBytes = 64 << 10
    /// Lines of one answer of the LVM helper.
    public static let helperLines = 1 << 16
    /// A command of LVM is done within this time; a volume group that others lock makes it wait.
    public static let lvmTime = Nanoseconds.seconds(60)
    /// A disk that takes no write for this long has failed.
    public static let blockTime = Nanoseconds.seconds(120)
    /// A target that is open for longer than this is used by somebody.
    public static let deviceProbeTime = Nanoseconds.seconds(1)
    /// How long it takes to learn what a volume's last snapshot saved, before that was measured; and where thin volumes differ.
    public static let assumedDeltaTime = Nanoseconds.milliseconds(20)
    public static let assumedThinDeltaTime = Nanoseconds.milliseconds(300)
    /// Zeroes that a disk is asked for at once; it may have to write them.
    public static let blockZeroBytes = 64 << 20
    /// How often a snapshot that could overflow is looked at.
    public static let snapshotWatchTime = Nanoseconds.milliseconds(100)

    /// What a Xen guest was told of its processor.
    public static let xenPolicyBytes = 64 << 10
    /// What Xen keeps of a domain's processors and interrupt controllers.
    public static let xenContextBytes = 4 << 20
    /// A value of xenstore, or the names below a path: xenstore's own limit for a message is 4096.
    public static let xenStoreBytes = 8 << 10
    /// What a suspended domain asked of its disks is done within this time.
    public static let xenRequestTime = Nanoseconds.seconds(10)
    /// Runs of frames with memory behind them in a domain's address space.
    public static let xenRuns = 4096
    /// Frames of a domain that are made and mapped at once.
    public static let xenFramesAtOnce = 4096
    /// A helper waits this long for the one at the other end to come, then takes it to be Xen's own.
    public static let xenMeetingTime = Nanoseconds.seconds(30)
    /// A restorer that was given a PV domain's rings has given them memory within this time.
    public static let xenRingsTime = Nanoseconds.seconds(30)
    /// A helper that is done leaves the host to xl for this long before it takes its maps down.
    public static let xenRestTime = Nanoseconds.seconds(10)
    /// Under xl a cut line is waited for this long: a helper that has died is not started again.
    public static let xenResumeWindow = Nanoseconds.seconds(30)
    /// Bytes of xl's stream that come before the helpers' greeting: the domain's configuration, and what libxl says first.
    public static let xlHeadBytes = 256 << 10
    /// Bytes of a domain's configuration, as libxl's JSON.
    public static let xenConfigurationBytes = 128 << 10
    /// libxl makes a domain's devices within this time: it waits ten seconds for each script.
    public static let xenDevicesTime = Nanoseconds.seconds(60)
    /// What an earlier move of a domain left running ends within this time.
    public static let xenLockTime = Nanoseconds.seconds(30)
    /// After a cut in a hand-off a target is asked for this long what became of it.
    public static let xenAskTime = Nanoseconds.seconds(30)
    /// Bytes of one thing that a helper tells of a move, as JSON, and how many of them wait to be read; what is told then is lost.
    public static let helperWordBytes = 1 << 20
    public static let heldReports = 256
    /// Bytes of the greeting that Xen's own stream carries, and addresses in it.
    public static let xenGreetingBytes = 4096
    public static let xenAddresses = 16
    /// A text that the helper gives to libxl's log.
    public static let xenLogBytes = 1024
    /// Body of one record of libxc's stream, and pages in one: what libxc itself allows and makes.
    public static let libxcRecordBytes = 128 << 20
    public static let libxcPages = 1024
    /// Stripes of pages on their way that each end holds for a PV domain, and as many more as make it as many for each data stream. A record's
    /// pages take part of five at most. What waits here when the guest is suspended goes before its last pages, so it is not more.
    public static let libxcStripes = 8

    /// Words of a program that one host runs for another.
    public static let programWords = 16
    /// Bytes of its standard streams in one message.
    public static let programBytes = 256 << 10
    /// Programs that one host runs for others at once.
    public static let programs = 64

    /// Bytes of a value in an orchestrator's store, and of a body that its API takes.
    public static let storedBytes = 64 << 10
    /// Entries that one request to a store, or to the API, lists.
    public static let listEntries = 1000
    /// Changes that one watcher of a store has not read yet; one that is slower must begin anew.
    public static let watchedChanges = 4096
    /// A store answers within this time.
    public static let storeTime = Nanoseconds.seconds(5)
    /// An orchestrator that does not renew it for this long is master no longer.
    public static let masterTime = Nanoseconds.seconds(6)
    /// A site's agent answers within this time.
    public static let agentTime = Nanoseconds.seconds(10)
    /// How often the master asks sites how they stand, and a moving machine's source how far it is.
    public static let sitePollTime = Nanoseconds.seconds(1)
    public static let movePollTime = Nanoseconds.milliseconds(250)
    /// How often the provider of a moving machine's path is asked how it stands.
    public static let pathPollTime = Nanoseconds.seconds(2)
    /// A site that did not answer for this long is shown as not reachable.
    public static let siteStateTime = Nanoseconds.seconds(10)
    /// Before a machine moves, a site that does not answer is asked again for this long; then the migration is undone.
    public static let agentPatience = Nanoseconds.seconds(30)
    /// Between two attempts to reach a site.
    public static let agentRetryTime = Nanoseconds.seconds(1)
    /// What is held at a site is kept this long after the orchestrator last asked for it.
    public static let slotTime = Nanoseconds.seconds(120)
    /// What became of a migration is remembered at its sites for this long: more than any request is late.
    public static let endedMoveTime = Nanoseconds.seconds(24 * 3600)
    /// A command of `turntable` that an agent waits for ends within this time.
    public static let agentCommandTime = Nanoseconds.seconds(30)
    /// What such a command prints, at most.
    public static let commandOutputBytes = listEntries * storedBytes
    /// How often an agent looks after a program that it started.
    public static let agentPollTime = Nanoseconds.milliseconds(100)
    /// Who follows a migration hears something this often, whether or not it changed.
    public static let eventPulseTime = Nanoseconds.seconds(10)
    /// Who follows a migration bears it this long that no orchestrator answers.
    public static let followPatience = Nanoseconds.seconds(30)
    /// What is kept of a migration's history.
    public static let migrationEvents = 64
    /// What became of a migration is kept this long.
    public static let migrationKeepTime = Nanoseconds.seconds(90 * 24 * 3600)
    /// What a migration used is kept this long.
    public static let accountKeepTime = Nanoseconds.seconds(3 * 365 * 24 * 3600)
    /// How often a master looks for what need not be kept.
    public static let pruneTime = Nanoseconds.seconds(3600)
    /// Migrations of one domain that are under way at once.
    public static let activeMigrations = 1000
    /// Evacuations of one domain that are under way at once, and machines of one that move at once.
    public static let activeEvacuations = 100
    public static let fleetMoves = 16
    /// An evacuation of which nothing is heard looks again after this.
    public static let evacuationPulseTime = Nanoseconds.seconds(10)

    /// Sites of one endpoint, endpoints of one gateway, and keepers that an endpoint is announced to.
    public static let endpointSites = 64
    public static let endpoints = 4096
    public static let endpointKeepers = 16
    /// When a target says that it has a machine, counted from the first time. Nothing is answered, so it says it more than once.
    public static let announcementTimes = [0.0, 5, 20, 80].map(Nanoseconds.milliseconds)
    /// A keeper whose site has a machine says so again this often, for those who missed it, and tries again what failed.
    public static let announcementPulseTime = Nanoseconds.seconds(1)
    /// Bytes of a gateway's description.
    public static let gatewayFileBytes = 4 << 20
    /// The largest IP packet that the tunnel between keepers takes.
    public static let tunnelPacketBytes = 65_535 - 64
    /// The kernel answers a change of its routes within this time.
    public static let netlinkTime = Nanoseconds.seconds(2)
    /// The longest transaction of nftables: about 100 bytes for each site of each endpoint, and 200 for each endpoint.
    public static let netlinkTransactionBytes = 32 << 20

    /// Nodes and links of a topology, and bytes of its file.
    public static let topologyNodes = 1000
    public static let topologyLinks = 4000
    public static let topologyBytes = 4 << 20
    /// Where a network meets others, the others that it knows, and what one of them says of itself.
    public static let topologyBorders = 16
    public static let lightpathPeers = 32
    public static let networkDocumentBytes = 1 << 20
    /// How often a peer is asked what it is; one of which nothing is known is asked more often, and what is older than this is dropped.
    public static let networkPollTime = Nanoseconds.seconds(10)
    public static let networkRetryTime = Nanoseconds.seconds(1)
    public static let networkAge = Nanoseconds.seconds(120)
    /// Networks that are known by others' word, and bytes of one such word.
    public static let knownNetworks = 64
    public static let networkWordBytes = 64 << 10
    /// The clocks of two networks' hosts differ by no more.
    public static let clockDifference = Nanoseconds.seconds(30)
    /// A peer says within this time what it has free.
    public static let offerTime = Nanoseconds.seconds(3)
    /// Ranges of free labels that are told of a border.
    public static let labelRanges = 64
    /// Ways over other networks that are tried for one lightpath.
    public static let lightpathAttempts = 8
    /// Links of one lightpath, and of one over other networks twice its segments.
    public static let lightpathHops = 64
    /// Lightpaths that a controller keeps at once: each has a number, which is part of a class's and of a network's.
    public static let lightpaths = 4096
    /// A held lightpath that nobody commits ends after this, and so does one that its orchestrator does not ask for any more.
    public static let lightpathHoldTime = Nanoseconds.seconds(120)
    /// A migration asks for a lightpath for this long, and for as long again when half of it is over.
    public static let lightpathTime = Nanoseconds.seconds(3600)
    /// The longest, and the farthest ahead, that a lightpath is reserved.
    public static let lightpathWindow = Nanoseconds.seconds(400 * 24 * 3600)
    /// How often a controller looks which lightpaths begin or end.
    public static let lightpathTickTime = Nanoseconds.milliseconds(500)
    /// A message of the NSI Connection Service, and the elements and the depth of one.
    public static let nsiMessageBytes = 1 << 20
    public static let nsiElements = 20_000
    public static let nsiDepth = 64
    /// A provider's confirmation, and then its data plane, come within this time.
    public static let nsiReplyTime = Nanoseconds.seconds(60)
    /// How often a provider is asked itself while its reply does not come.
    public static let nsiPollTime = Nanoseconds.seconds(1)
    /// Replies that are waited for at once, and those that came before anybody waited.
    public static let nsiReplies = 4096
}
