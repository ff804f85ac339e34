# The profile of containers that ask for none. Capabilities, namespaces and the seccomp filter say what a container may do; this says what it may not do to
# the host by the files of proc and sysfs and by mounts, should one of those let it through, and keeps its processes from signalling and tracing those
# outside.
profile docker-default flags=(attach_disconnected, mediate_deleted) {
  capability,
  file,
  network,
  umount,

  # What is outside may signal it: the daemon and its supervisors, and other runtimes where they have profiles of their own.
  signal (receive) peer=@DAEMON@,
  signal (receive) peer=unconfined,
  signal (receive) peer={runc,crun},
  signal (send, receive) peer=docker-default,
  ptrace (trace, read, tracedby, readby) peer=docker-default,

  deny mount,

  # Of proc, only the folders of processes and the limits of System V's shared memory may be written to: not the files at the top, not in other
  # folders there but sys, not in other folders of sys but kernel, not other files there.
  deny /proc/[^0-9]* w,
  deny /proc/{[^0-9s]*,s[^y]*,sy[^s]*,sys?*}/** w,
  deny /proc/sys/{[^k]*,k[^e]*}/** w,
  deny /proc/sys/kernel/{[^s]*,s[^h]*,sh[^m]*}{,/**} w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  # Of sysfs, only the cgroups; and some is not to be read, either.
  deny /sys/* wklx,
  deny /sys/{[^f]*,f[^s]*,fs?*}/** wklx,
  deny /sys/fs/{[^c]*,c[^g]*,cg[^r]*}/** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
