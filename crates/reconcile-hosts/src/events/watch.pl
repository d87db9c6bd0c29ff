# Tells on standard output that something may have changed on this server: a line `unit NAME` or
# `file PATH` each time. Never what is there now. It writes nothing on the server, starts nothing,
# and ends with the connection: at the end of its input, or after 60 s without a sign of life.
#
# perl-base is essential on Debian, so this runs on a bare server. Files are watched with inotify,
# units through systemd's own socket, which tells root of every change without a subscription.
#
# Input: lines `file PATH` and `unit NAME`, then `go`; afterwards any line is answered with `alive`.
use strict;
use warnings;
use Config;
use Errno qw(EINTR EAGAIN);
use Socket;

my $SILENCE = 60;
my $BUS     = '/run/systemd/private';
$0 = 'reconcile-events';
$| = 1;
$SIG{PIPE} = 'DEFAULT';

my (%files, %units);
while (my $line = <STDIN>) {
    chomp $line;
    last if $line eq 'go';
    $files{$1} = 1 if $line =~ /^file (\/.+)$/;
    if ($line =~ /^unit (.+)$/) {
        my $name = $1;
        (my $path = $name) =~ s/([^A-Za-z0-9])/sprintf '_%02x', ord $1/ge;
        $units{"/org/freedesktop/systemd1/unit/$path"} = $name;
        # What enables, overrides and masks it, for those who do without systemctl.
        $files{"$_/$name"} = 1
          for '/etc/systemd/system', '/run/systemd/system', '/etc/systemd/system/multi-user.target.wants';
    }
}

sub tell_of { print "@_\n" }

# Files: their directories are watched, for a directory tells of its entries whatever is done to
# them. Where one is missing, the nearest that is there is watched for what is to come.
my ($init, $add) = $Config{archname} =~ /^x86_64/ ? (294, 254)
                 : $Config{archname} =~ /^(?:aarch64|riscv64)/ ? (26, 27)
                 : ();
# MODIFY ATTRIB CLOSE_WRITE MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF, ONLYDIR
my $MASK = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x1000000;
my $SELF = 0x400 | 0x800 | 0x2000 | 0x8000;    # DELETE_SELF MOVE_SELF UNMOUNT IGNORED
my (%watched, $inotify);

sub arm {
    my %wanted;
    for my $file (keys %files) {
        my ($dir, $name) = $file =~ m{^(.*)/([^/]+)$} or next;
        while ($dir ne '' && !-d $dir) { ($dir, $name) = $dir =~ m{^(.*)/([^/]+)$} or last }
        $dir = '/' if $dir eq '';
        $wanted{$dir}{$name} = $file;
    }
    %watched = ();
    for my $dir (sort keys %wanted) {
        my $path = $dir;
        my $wd = syscall($add, fileno $inotify, $path, $MASK);
        if ($wd < 0) { tell_of("lost watching $dir: $!"); next }
        $watched{$wd} = [$dir, { %{ $watched{$wd} ? $watched{$wd}[1] : {} }, %{ $wanted{$dir} } }];
    }
}

if (defined $init) {
    my $fd = syscall($init, 0x800 | 0x80000);    # NONBLOCK CLOEXEC
    if ($fd < 0 || !open $inotify, '<&=', $fd) { undef $inotify; tell_of("lost inotify: $!") }
} else {
    tell_of("lost files: no system call numbers for $Config{archname}");
}
arm() if $inotify;

sub from_inotify {
    my $count = sysread $inotify, my $events, 65536;
    return if !$count;
    my (%told, $again);
    while (length $events >= 16) {
        my ($wd, $mask, undef, $length) = unpack 'iIII', $events;
        my $name = unpack "x16 Z$length", $events;
        substr $events, 0, 16 + $length, '';
        if ($mask & 0x4000) { $told{'/'} = $again = 1; next }    # Q_OVERFLOW
        my $watch = $watched{$wd} or next;
        if ($mask & $SELF) { $told{ $watch->[0] } = $again = 1; next }
        my $file = $watch->[1]{$name} // next;
        $told{$file} = 1;
        # It may be a directory on the way to a file.
        $again = 1 if $mask & 0x40000000 || !$files{"$watch->[0]/$name"};
    }
    arm() if $again;
    tell_of("file $_") for sort keys %told;
}

# Units: D-Bus messages of systemd, of which only the header is read.
my ($bus, $bytes, $greeted);

sub connect_bus {
    $bytes = ''; $greeted = 0;
    socket $bus, PF_UNIX, SOCK_STREAM, 0 or return undef $bus;
    connect $bus, pack_sockaddr_un($BUS) or return undef $bus;
    my $uid = unpack 'H*', $>;
    syswrite $bus, "\0AUTH EXTERNAL $uid\r\nBEGIN\r\n" or return undef $bus;
    return 1;
}

sub from_bus {
    my $count = sysread $bus, $bytes, 65536, length $bytes;
    if (!$count) {
        return if !defined $count && ($! == EINTR || $! == EAGAIN);
        # systemd was executed anew, or found us slow: whatever happened meanwhile is unknown.
        undef $bus;
        return tell_of('unit systemd');
    }
    if (!$greeted) {
        $bytes =~ s/^[^\n]*\r\n// or return;
        $greeted = 1;
    }
    my %told;
    while (length $bytes >= 16) {
        my $order = substr($bytes, 0, 1) eq 'B' ? 'N' : 'V';
        my ($body, undef, $fields) = unpack "x4 $order$order$order", $bytes;
        my $head = 16 + $fields + (-$fields % 8);
        last if length $bytes < $head + $body;
        my $header = substr $bytes, 0, $head;
        substr $bytes, 0, $head + $body, '';
        if (index($header, "UnitFilesChanged\0") >= 0) { $told{'files'} = 1; next }
        next if index($header, "PropertiesChanged\0") < 0;
        my ($path) = $header =~ m{(/org/freedesktop/systemd1/unit/[A-Za-z0-9_]+)\0} or next;
        $told{ $units{$path} } = 1 if $units{$path};
    }
    tell_of("unit $_") for sort keys %told;
}

connect_bus() or tell_of("lost $BUS: $!");
tell_of('ready');

my $heard = time;
while (1) {
    my $fds = '';
    vec($fds, fileno $_, 1) = 1 for grep { defined } \*STDIN, $inotify, $bus;
    my $left = $bus ? $SILENCE - (time - $heard) : 1;
    my $count = select $fds, undef, undef, $left > 0 ? $left : 0;
    next if $count < 0;
    exit if time - $heard >= $SILENCE && !vec $fds, 0, 1;
    if ($count && vec $fds, 0, 1) {
        my $read = sysread STDIN, my $line, 4096;
        exit if !$read;
        $heard = time;
        tell_of('alive');
    }
    from_inotify() if $count && $inotify && vec $fds, fileno $inotify, 1;
    if (!$bus) { tell_of('unit systemd') if connect_bus() }
    elsif ($count && vec $fds, fileno $bus, 1) { from_bus() }
}
__END__
