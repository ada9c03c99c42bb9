internal import Hypervisors
internal import TestSupport
internal import Testing
internal import TurntableCore

/// What another host may make this one start.
struct ReceivePolicyTests {
    private let policy: ReceivePolicy = {
        var policy = ReceivePolicy()
        policy.paths = ["/vm", "/boot/guest/"]
        policy.memory = .mebi(4096)
        return policy
    }()

    private func check(_ arguments: [String]) throws(TurntableError) -> [String] {
        try policy.check(arguments) { $0 == "/usr/bin/qemu-system-x86_64" }
    }

    /// Command lines as people write them.
    static let honest: [String] = [
        "-machine q35,accel=kvm -cpu host -smp 2 -m 1G -nodefaults -no-user-config -display none -serial stdio -no-reboot",
        "-M microvm,x-option-roms=off,isa-serial=on -kernel /boot/guest/vmlinuz -initrd /boot/guest/initrd -append console=ttyS0 -nographic",
        "-drive file=/vm/disk.qcow2,if=virtio,format=qcow2,cache=writeback,aio=threads -boot order=c,menu=off",
        "-blockdev driver=file,filename=/vm/disk.raw,node-name=d0 -blockdev driver=raw,file=d0,node-name=d1 -device virtio-blk-pci,drive=d1,bootindex=1",
        "-netdev tap,id=n,ifname=tap-1,script=no,downscript=no,vhost=on -device virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,romfile=",
        "-netdev user,id=n,net=10.0.2.0/24,restrict=on -device e1000e,netdev=n,addr=0x3.0",
        "-object memory-backend-memfd,id=ram0,size=1G,hugetlb=on -machine memory-backend=ram0 -m 1G",
        "-object rng-random,id=rng0,filename=/dev/urandom -device virtio-rng-pci,rng=rng0 -object iothread,id=io1",
        "-chardev socket,id=c,path=/vm/run/console.sock,server=on,wait=off -serial chardev:c -chardev file,id=l,path=/vm/log,append=on",
        "-serial file:/vm/console.log -vga std -vnc 127.0.0.1:7 -uuid 3f5c7a34-0000-4000-8000-000000000001 -name guest=web,debug-threads=on",
        "-smbios type=1,manufacturer=Example,serial=ds=nocloud -rtc base=utc -numa node,nodeid=0,memdev=ram0 -object memory-backend-ram,id=ram0,size=128M",
        "-device usb-tablet -usb -device qemu-xhci,id=x -cdrom /vm/install.iso -bios /vm/OVMF.fd",
    ]

    @Test(arguments: honest)
    func honestMachinesStart(line: String) throws {
        let arguments = ["qemu-system-x86_64"] + line.split(separator: " ").map(String.init)
        #expect(try check(arguments) == ["/usr/bin/qemu-system-x86_64"] + arguments.dropFirst())
    }

    /// Nothing is allowed that names a path, unless its directory was.
    @Test func withoutAllowedDirectoriesNoPathPasses() {
        let strict = ReceivePolicy()
        for path in ["-kernel /vm/x", "-drive file=/vm/x", "-serial file:/vm/x", "-object rng-random,id=r,filename=/dev/mem"] {
            let error = failure { () throws(TurntableError) in
                try strict.check(["qemu-system-x86_64"] + path.split(separator: " ").map(String.init)) { _ in true }
            }
            #expect(error?.kind == .refused, "\(path)")
        }
    }

    static let hostile: [String] = [
        // Options that have no business here.
        "-incoming exec:id", "-incoming tcp:0:4444", "-daemonize", "-monitor stdio", "-monitor tcp:0.0.0.0:1,server",
        "-qmp unix:/vm/q,server", "-mon chardev=c",
        "-readconfig /vm/x", "-writeconfig /vm/x", "-pidfile /vm/x", "-D /vm/log", "-d guest_errors", "-trace file=/vm/x",
        "-plugin /vm/x.so", "-L /vm", "-chroot /vm",
        "-runas root", "-loadvm x", "-fw_cfg name=opt/x,file=/vm/x", "-fsdev local,id=f,path=/vm,security_model=none",
        "-virtfs local,path=/vm,mount_tag=x,security_model=none",
        "-tpmdev passthrough,id=t", "-audiodev wav,id=a,path=/vm/x", "-spice port=5900", "-gdb tcp::1234", "-s", "-qtest stdio",
        "-set device.x.romfile=y", "-global e1000.romfile=x",
        "-add-fd fd=3,set=1", "-icount shift=auto,rr=record,rrfile=x", "-semihosting-config enable=on", "-option-rom x", "-pflash /vm/x",
        "-mtdblock /vm/x", "-sd /vm/x",
        "-hdc /vm/x", "-fda /vm/x", "-mem-path /vm", "-acpitable file=/vm/x", "-compat x=y", "-unknown x",
        // Paths outside.
        "-drive file=/etc/shadow", "-drive file=/vm/../etc/shadow", "-drive file=/vmx/disk", "-kernel /etc/shadow",
        "-initrd /vm/a,/etc/shadow", "-initrd /vm/a,,/etc/shadow",
        "-kernel vmlinuz", "-kernel ./vmlinuz", "-bios bios.bin", "-cdrom ..", "-dtb x", "-drive file=disk.img", "-drive file=",
        "-drive file=//etc/shadow", "-cdrom fat:/vm",
        "-boot splash=/etc/shadow", "-boot splash=x.jpg", "-smbios file=x", "-smbios type=11,path=/etc/shadow", "-machine q35,kernel=x",
        "-M virt,dumpdtb=x", "-machine q35,firmware=x",
        "-device virtio-net-pci,romfile=x", "-device virtio-net-pci,romfile=/etc/shadow",
        "-object memory-backend-file,id=m,size=1M,mem-path=/dev/mem",
        "-object rng-random,id=r,filename=/dev/mem", "-object secret,id=s,file=/etc/shadow",
        "-object memory-backend-file,id=m,size=1M,mem-path=x",
        // Programs.
        "-netdev tap,id=n", "-netdev tap,id=n,script=no", "-netdev tap,id=n,script=x,downscript=no",
        "-netdev tap,id=n,script=no,downscript=no,helper=id",
        "-netdev id=n,type=tap,script=x,downscript=x", "-netdev type=tap,id=n", "-netdev bridge,id=n,helper=id",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.100:1-cmd:id",
        "-nic user,guestfwd=tcp:10.0.2.100:1-cmd:id", "-nic tap", "-net tap", "-net user,smb=x", "-netdev user,id=n,smb=/vm",
        "-netdev user,id=n,tftp=..", "-netdev user,id=n,bootfile=x",
        "-netdev user,id=n,hostfwd=tcp::22-:22", "-netdev user,id=n,script=no,script=x",
        // Other hosts, sockets, descriptors, devices of the host's.
        "-netdev socket,id=n,connect=10.0.0.1:1", "-netdev socket,id=n,fd=3", "-netdev tap,id=n,fd=3,script=no,downscript=no",
        "-netdev tap,id=n,fds=3:4,script=no,downscript=no",
        "-netdev vhost-user,id=n,chardev=c", "-netdev vhost-vdpa,id=n,vhostdev=x", "-netdev stream,id=n,addr.type=fd,addr.str=3",
        "-netdev l2tpv3,id=n,src=x,dst=y,txsession=1",
        "-netdev passt,id=n", "-chardev socket,id=c,host=10.0.0.1,port=1", "-chardev socket,id=c,fd=3", "-chardev socket,id=c,path=x",
        "-chardev socket,id=c,path=/run/docker.sock",
        "-chardev pipe,id=c,path=/vm/x", "-chardev file,id=c,path=x", "-chardev file,id=c,path=/vm/o,input-path=/etc/shadow",
        "-chardev udp,id=c,host=h,port=1", "-chardev backend=file,id=c,path=/vm/x",
        "-chardev tty,id=c,path=/dev/ttyS0", "-chardev serial,id=c,path=/dev/ttyS0", "-chardev null,id=c,logfile=x",
        "-chardev id=c,backend=pipe,path=x",
        "-serial pipe:x", "-serial pipe:/vm/x", "-serial tcp:10.0.0.1:1", "-serial telnet::1,server", "-serial udp:10.0.0.1:1",
        "-serial /dev/ttyS0", "-serial /vm/x", "-serial file:x",
        "-serial unix:x,server", "-serial unix:/run/docker.sock", "-serial file:/vm/../etc/passwd", "-serial mon:stdio",
        "-serial websocket::1", "-vnc :0", "-vnc 0.0.0.0:1", "-vnc 10.0.0.1:5500,reverse=on",
        "-vnc unix:/etc/x", "-display vnc=:1", "-display gtk", "-display egl-headless,rendernode=/dev/dri/card0", "-display dbus,addr=x",
        "-drive file=nbd:h:1", "-drive file=nbd://h/x", "-drive file=ssh://h/x", "-drive file=http://h/x", "-drive file=json:{}",
        "-drive file=fat:rw:/vm", "-drive file.filename=x,if=none",
        "-drive file.driver=nbd,file.host=h,file.port=1", "-drive driver=vvfat,dir=..", "-drive file.driver=vvfat,file.dir=/vm",
        "-drive file.filename=/etc/shadow", "-drive backing.file.filename=/etc/shadow,file=/vm/x",
        "-drive file=/vm/x,format=luks", "-blockdev driver=nbd,server.type=inet,server.host=h,server.port=1,node-name=a",
        "-blockdev driver=vvfat,dir=..,node-name=a", "-blockdev driver=file,filename=x,node-name=a",
        "-blockdev driver=host_device,filename=/dev/sda,node-name=a",
        "-blockdev {\"driver\":\"file\",\"filename\":\"/etc/shadow\",\"node-name\":\"a\"}",
        "-object {\"qom-type\":\"iothread\",\"id\":\"x\"}",
        "-device {\"driver\":\"vfio-pci\",\"host\":\"0000:01:00.0\"}", "-device vfio-pci,host=0000:01:00.0",
        "-device driver=vfio-pci,host=0000:01:00.0", "-device usb-host,hostbus=1,hostaddr=2",
        "-device usb-mtp,rootdir=..", "-device loader,file=/etc/shadow", "-device loader,file=x,addr=0",
        "-device virtio-9p-pci,fsdev=f,mount_tag=/x", "-device vhost-vsock-pci,guest-cid=3",
        "-device virtio-net-pci,vhostfd=3", "-device vhost-scsi-pci,wwpn=x", "-device virtio-input-host-pci,evdev=/dev/input/event0",
        "-device vhost-user-fs-pci,chardev=c,tag=x",
        "-object filter-dump,id=f,netdev=n,file=/vm/x", "-object qtest,id=q,chardev=c,log=x",
        "-object input-linux,id=i,evdev=/dev/input/event0", "-object tls-creds-x509,id=t,dir=x,endpoint=server",
        "-object authz-pam,id=a,service=x", "-object can-host-socketcan,id=c,if=can0,canbus=b", "-object x-remote-object,id=r,fd=3",
        "-object cryptodev-vhost-user,id=c,chardev=d", "-object id=x,qom-type=iothread",
        "-accel kvm,device=/dev/x", "-accel xen", "-sandbox on,x=/y", "-k /etc/shadow", "-k ../x", "-vga /x",
        // Forms that could be read in two ways.
        "disk.img", "/vm/disk.img", "-", "-m", "-append", "-drive", "-drive file=/vm/x,,file=/etc/shadow,if=none,x=y",
        // Too much memory, also where an option hides in another's value.
        "-m 5G", "-object memory-backend-ram,id=a,size=5G", "-append -device -object memory-backend-ram,id=a,size=900G",
        "-append -device -m 900G", "-m 3G -object memory-backend-ram,id=a,size=3G",
        "-append -device -device vfio-pci,host=0000:01:00.0",
    ]

    @Test(arguments: hostile)
    func hostileOnesDoNot(line: String) {
        let arguments = ["qemu-system-x86_64"] + line.split(separator: " ").map(String.init)
        let kind = failure { () throws(TurntableError) in try check(arguments) }?.kind
        #expect(kind == .refused || kind == .usage)
    }

    @Test(arguments: [
        "", "sh", "/bin/sh", "qemu-img", "qemu-system-", "/tmp/qemu-system-x86_64/sh", "qemu-system-x86_64;id", "qemu-system-x86_64 -x",
        "qemu-system-aarch64", "../qemu-system-x86-64",
    ])
    func onlyInstalledEmulatorsStart(program: String) {
        #expect(failure { () throws(TurntableError) in try check([program]) }?.kind == .refused)
    }

    /// A program of another place is not started: the one installed here is.
    @Test func theEmulatorIsThisHostsOwn() throws {
        #expect(try check(["/somewhere/else/qemu-system-x86_64", "-S"]) == ["/usr/bin/qemu-system-x86_64", "-S"])
    }

    @Test func anArgumentWithAZeroByteIsRefused() {
        #expect(failure { () throws(TurntableError) in try check(["qemu-system-x86_64", "-append", "x\0y"]) }?.kind == .refused)
        #expect(failure { () throws(TurntableError) in try check([]) }?.kind == .refused)
    }
}
