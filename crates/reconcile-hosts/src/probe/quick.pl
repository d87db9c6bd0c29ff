# Reads on this server what a probe asks for, with as few processes as can be: one for the digests.
# It answers only where all is as it was asked to be; anything else is `odd: WHY`, and then the
# probe's shell script looks. So what is wrong on a server is told by one program, and not by two.
#
# It writes nothing and ends with its input. perl-base is essential on Debian.
#
# Input: lines `WHAT <tab> VALUE...`, then `end <tab> TEXT`. Output: the probe's sections, or what is
# odd, then the line TEXT.
use strict;
use warnings FATAL => 'all';
use Config;
use Errno qw(ENOENT ENOTDIR EINPROGRESS EINTR EAGAIN);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);

my $SECONDS = 1;
# What a file system or sha256sum may keep it waiting, seconds: then it ends, and the script is asked.
my $AT_MOST = 3;
my $LIMIT   = 4_000_000;
my $TEXT    = 64 * 1024;
my $BUS     = '/run/systemd/private';
my %UNIT    = ('org.freedesktop.systemd1.Unit' => [qw(Id LoadState ActiveState SubState UnitFileState
                 NeedDaemonReload FragmentPath InvocationID)],
               'org.freedesktop.systemd1.Service' => [qw(NRestarts MainPID ExecMainStartTimestamp)]);
my %CALL = $Config{archname} =~ /^x86_64/ ? (statx => 332, statfs => 137, gettimeofday => 96)
         : $Config{archname} =~ /^(?:aarch64|riscv64)/ ? (statx => 291, statfs => 43, gettimeofday => 169)
         : ();
$0 = 'reconcile-probe';
$| = 1;
$SIG{PIPE} = 'IGNORE';

# The process that makes the digests, while its output is not read to the end.
my $summing;
sub odd { kill 'KILL', $summing if $summing; die "@_\n" }
$SIG{ALRM} = sub { kill 'KILL', $summing if $summing; exit 1 };

# Milliseconds since 1970; Time::HiRes is not in perl-base.
sub now {
    my $time = "\0" x 16;
    syscall($CALL{gettimeofday}, $time, 0) == 0 or odd("gettimeofday: $!");
    my ($seconds, $micros) = unpack 'qq', $time;
    return $seconds * 1000 + int($micros / 1000);
}

sub absent { return $! == ENOENT || $! == ENOTDIR }

# All of a file, up to a limit; beyond it, something is odd. Perl's own reading takes an error for the end.
sub content {
    my ($path, $limit) = @_;
    open my $file, '<:raw', $path or return absent() ? undef : odd("$path: $!");
    my ($content, $read) = ('');
    do {
        $read = sysread $file, $content, 65536, length $content;
        defined $read or odd("$path: $!");
        length $content <= ($limit // $LIMIT) or odd("$path is long");
    } while $read;
    return $content;
}

# The first bytes of a file, which may be long.
sub beginning {
    my ($path, $length) = @_;
    open my $file, '<:raw', $path or return absent() ? undef : odd("$path: $!");
    defined sysread $file, my $bytes, $length or odd("$path: $!");
    return $bytes;
}

# Its entries; Perl's own list of them ends at an error as if there were no more.
sub entries {
    my ($path) = @_;
    opendir my $listing, $path or return absent() ? () : odd("$path: $!");
    my @entries;
    while (1) {
        $! = 0;
        my $entry = readdir $listing;
        if (!defined $entry) { $! == 0 or odd("$path: $!"); return @entries }
        push @entries, $entry if $entry ne '.' && $entry ne '..';
        odd("$path has many entries") if @entries > 10_000;
    }
}

# As `read` of a shell takes it.
sub first_line {
    my $content = content($_[0]);
    return defined $content ? $content =~ /^([^\n]*)/ && "$1\n" : undef;
}

# --- what is asked of others, all side by side

sub dial {
    my ($family, $address) = @_;
    socket my $socket, $family, SOCK_STREAM, 0 or odd("socket: $!");
    fcntl $socket, F_SETFL, fcntl($socket, F_GETFL, 0) | O_NONBLOCK or odd("fcntl: $!");
    connect $socket, $address or $! == EINPROGRESS or odd("connect: $!");
    return $socket;
}

sub transfer {
    my ($name, $url, $data) = @_;
    my ($authority, $path) = $url =~ m{^http://([^/]+)(/.*)$} or odd("no way to $url");
    my $socket;
    if ($authority eq 'docker') {
        $socket = dial(PF_UNIX, pack_sockaddr_un('/var/run/docker.sock'));
    } else {
        my ($host, $port) = $authority =~ /^\[?([0-9A-Fa-f:.]+?)\]?:(\d+)$/ or odd("no way to $url");
        my ($four, $six) = (inet_pton(AF_INET, $host), inet_pton(AF_INET6, $host));
        $socket = $four ? dial(PF_INET, pack_sockaddr_in($port, $four))
                : $six  ? dial(PF_INET6, pack_sockaddr_in6($port, $six))
                :         odd("no way to $url");
    }
    my $send = $data eq '' ? 'GET' : 'POST';
    $send .= " $path HTTP/1.0\r\nHost: $authority\r\nAccept: */*\r\nConnection: close\r\n";
    $send .= "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " . length($data) . "\r\n"
      if $data ne '';
    return { what => $name, socket => $socket, send => "$send\r\n$data", got => '',
             whole => sub { 0 } };
}

# Status and body.
sub answered {
    my ($from) = @_;
    my ($head, $body) = $from->{got} =~ /^(.*?\r\n)\r\n(.*)$/s or odd("$from->{what}: no answer");
    my ($code) = $head =~ m{^HTTP/1\.[01] ([1-5]\d\d)\b} or odd("$from->{what}: no HTTP");
    odd("$from->{what}: in pieces") if $head =~ /^Transfer-Encoding:/mi;
    odd("$from->{what}: cut off") if $head =~ /^Content-Length: *(\d+)/mi && $1 != length $body;
    return ($code, $body);
}

# D-Bus, as much of it as reading a property of systemd takes.
sub padded { my ($bytes, $to) = @_; return $bytes . "\0" x (-length($bytes) % $to) }
sub text   { return pack 'V/a x', $_[0] }

sub get {
    my ($serial, $path, $interface, $property) = @_;
    my $fields = '';
    for ([1, 'o', $path], [2, 's', 'org.freedesktop.DBus.Properties'], [3, 's', 'Get'],
         [6, 's', 'org.freedesktop.systemd1']) {
        $fields = padded($fields, 8) . pack('C C a x', $_->[0], 1, $_->[1]) . text($_->[2]);
    }
    $fields = padded($fields, 8) . pack('C C a x C a2 x', 8, 1, 'g', 2, 'ss');
    my $body = padded(text($interface), 4) . text($property);
    return padded(pack('a C C C V V V', 'l', 1, 0, 1, length $body, $serial, length $fields) . $fields, 8)
      . $body;
}

# The call that a message answers, and the value in it; nothing, where it answers none.
sub value {
    my ($type, $fields, $body) = @_;
    return if $type != 2 && $type != 3;
    my ($at, $serial) = (0);
    while ($at < length $fields) {
        $at += -$at % 8;
        my ($code, $kind) = unpack "x$at C x a", $fields;
        $at += 4;
        if ($kind eq 'g') { $at += 2 + unpack "x$at C", $fields; next }
        my $number = unpack "x$at V", $fields;
        $serial = $number if $code == 5;
        $at += $kind eq 'u' ? 4 : $kind =~ /[so]/ ? 5 + $number : odd("systemd: field of kind $kind");
    }
    odd('systemd refused a question') if $type == 3;
    my $kind = unpack 'C/a', $body;
    my $from = 2 + length $kind;
    $from += -$from % ($kind eq 't' ? 8 : 4);
    return ($serial, $kind eq 's' || $kind eq 'o' ? unpack "x$from V/a", $body
                   : $kind eq 'u'  ? unpack "x$from V", $body
                   : $kind eq 'b'  ? (unpack("x$from V", $body) ? 'yes' : 'no')
                   : $kind eq 't'  ? unpack "x$from Q<", $body
                   : $kind eq 'ay' ? unpack 'H*', unpack "x$from V/a", $body
                   :                 odd("systemd: value of kind $kind"));
}

sub units {
    my (@names) = @_;
    my ($send, @asked) = ("\0AUTH EXTERNAL " . unpack('H*', $>) . "\r\nBEGIN\r\n");
    for my $name (@names) {
        $name =~ /\.service$/ or odd("$name is no service");
        (my $path = $name) =~ s/([^A-Za-z0-9])/sprintf '_%02x', ord $1/ge;
        for my $interface (sort keys %UNIT) {
            for my $property (@{ $UNIT{$interface} }) {
                push @asked, [$name, $property];
                $send .= get(scalar @asked, "/org/freedesktop/systemd1/unit/$path", $interface, $property);
            }
        }
    }
    my ($left, $greeted, %values) = (scalar @asked);
    my $read = sub {
        my ($from) = @_;
        $greeted ||= $from->{got} =~ s/^OK [^\n]*\r\n// or return 0;
        while (length $from->{got} >= 16) {
            my ($order, $type, $length, undef, $fields) = unpack 'a C x2 V V V', $from->{got};
            odd("systemd: order $order") if $order ne 'l';
            my $head = 16 + $fields + (-$fields % 8);
            last if length $from->{got} < $head + $length;
            my $message = substr $from->{got}, 0, $head + $length, '';
            my ($serial, $value) = value($type, substr($message, 16, $fields), substr $message, $head)
              or next;
            my ($name, $property) = @{ $asked[$serial - 1] };
            $value = $value ? '@' . int($value / 1_000_000) : '' if $property eq 'ExecMainStartTimestamp';
            $values{$name}{$property} = $value;
            $left--;
        }
        return !$left;
    };
    return { what => 'systemd', socket => dial(PF_UNIX, pack_sockaddr_un($BUS)), send => $send,
             got => '', whole => $read, values => \%values };
}

# Until all have told, or time is over.
sub converse {
    my ($until, @all) = @_;
    while (@all) {
        my ($in, $out) = ('', '');
        for (@all) { vec($_->{send} ne '' ? $out : $in, fileno $_->{socket}, 1) = 1 }
        my $left = $until - now();
        odd(join(', ', map { $_->{what} } @all) . ': no answer in time') if $left <= 0;
        my $count = select $in, $out, undef, $left / 1000;
        next if $count < 0;
        for my $one (@all) {
            my $socket = $one->{socket};
            if (vec $out, fileno $socket, 1) {
                my $sent = syswrite $socket, $one->{send};
                if (defined $sent) { substr $one->{send}, 0, $sent, '' }
                elsif ($! != EAGAIN && $! != EINTR) { odd("$one->{what}: $!") }
            } elsif (vec $in, fileno $socket, 1) {
                my $read = sysread $socket, $one->{got}, 65536, length $one->{got};
                if (!defined $read) { odd("$one->{what}: $!") if $! != EAGAIN && $! != EINTR; next }
                odd("$one->{what}: too much") if length $one->{got} > 4_000_000;
                $one->{ended} = $one->{whole}->($one) || $read == 0;
            }
        }
        @all = grep { !$_->{ended} } @all;
    }
}

# --- the server itself

# `PATH INODE SECONDS.NANOSECONDS` of the last change of the inode.
sub mark {
    my ($path) = @_;
    my $all = "\0" x 256;
    syscall($CALL{statx}, -100, $path, 0x100, 0x7ff, $all) == 0 or return '';
    my ($inode, $seconds, $nanos) = unpack 'x32 Q x56 q L', $all;
    return sprintf "%s %d %d.%09d\n", $path, $inode, $seconds, $nanos;
}

# Local address, user and inode of each listening socket.
sub sockets {
    my $rows = '';
    for my $file ('/proc/net/tcp', '/proc/net/tcp6') {
        my $table = content($file, 16 * $LIMIT) // '';
        $rows .= "$1 $2 $3\n"
          while $table =~ /^ *\d+: (\S+) \S+ 0A \S+ \S+ \S+ +(\d+) +\d+ (\d+)/mg;
    }
    return $rows;
}

sub disk {
    my ($path) = @_;
    my $there = $path;
    while (!-e $there) { $there = $there =~ m{^(.*)/[^/]+$} && $1 ne '' ? $1 : '/' }
    my $all = "\0" x 256;
    syscall($CALL{statfs}, $there, $all) == 0 or odd("$there: $!");
    my (undef, undef, $blocks, undef, $available, undef, undef, undef, undef, $size) = unpack 'Q10', $all;
    return ("$path\t$there\n", $blocks * $size . ' ' . $available * $size . " $there\n");
}

sub replaced {
    my ($program, @dirs) = @_;
    for my $dir (@dirs) {
        my $pid = content("$dir/postmaster.pid", $TEXT) // next;
        $pid =~ /^(\d+)\n/ or next;
        my @runs = stat "/proc/$1/exe" or next;
        my @installed = stat $program;
        odd("$program is not what runs") if !@installed || "@runs[0, 1]" ne "@installed[0, 1]";
    }
}

sub look {
    my ($ask) = @_;
    odd("no system call numbers for $Config{archname}") if !%CALL;
    my %told = (begin => now() . "\n");
    my $until = now() + 1000 * $SECONDS;
    my $all = sub { return map { $_->[0] } @{ $ask->{ $_[0] } // [] } };

    my (%stat, @regular);
    my $number = -1;
    for (@{ $ask->{file} // [] }) {
        my ($expect, $keep, $path) = @$_;
        $number++;
        my @stat = lstat $path;
        if (!@stat) { absent() or odd("$path: $!"); next }
        my $stat = sprintf "%x\t%s\t%s", $stat[2], getpwuid($stat[4]) // 'UNKNOWN', getgrgid($stat[5]) // 'UNKNOWN';
        odd("$path is another's or has another mode") if $keep ne '' && $keep ne $stat =~ tr/\t/ /r;
        $told{stat} .= "$stat\t$path\n";
        next if ($stat[2] & 0170000) != 0100000;
        push @regular, $path;
        $stat{$path} = $expect;
        # Its text is wanted, whatever it is.
        $told{"text.$number"} = content($path, $TEXT) // odd("$path is gone") if $expect eq '-';
    }
    $told{stat} //= '' if $ask->{file};
    my $sums;
    if (@regular) {
        # Where something is odd, nobody reads its output to the end.
        local $SIG{PIPE} = 'DEFAULT';
        $summing = open $sums, '-|', 'sha256sum', '--', @regular or odd("sha256sum: $!");
    }

    # Patroni answers /config from what it read last, up to a turn of its loop ago, and reads anew for
    # /cluster: asked side by side, a change that has just been told of is not seen.
    my $late = sub { $_[0][0] eq 'patroni-config' };
    my @transfers = map { transfer(@$_) } grep { !$late->($_) } @{ $ask->{http} // [] };
    my $units = $ask->{unit} ? units($all->('unit')) : undef;
    if ($ask->{docker}) {
        -S '/var/run/docker.sock' or odd('Docker has no socket');
        $told{'docker.have'} = "socket\n";
        $told{'docker.installed'} = "installed\n" if grep { -x "$_/dockerd" } split /:/, $ENV{PATH} // '';
    }

    $told{marks} = join '', map { mark($_) } $all->('mark');
    $told{sockets} = sockets();
    for my $path ($all->('owed'), $all->('outdated')) {
        my ($dir, $prefix) = $path =~ m{^(.*)/([^/]*)$};
        my $name = $ask->{owed}[0][0] eq $path ? 'owed' : 'outdated';
        $told{$name} = '';
        for (sort grep { index($_, $prefix) == 0 } entries($dir)) {
            my $content = content("$dir/$_") // next;
            $told{$name} .= substr($_, length $prefix) . " $1\n" if $content =~ /^([^\n]*)\n/;
        }
    }
    for ($all->('guard')) { $told{guard} = "guarded\n" if -e }
    for my $dir ($all->('dir')) {
        $told{$_} //= '' for 'dirs', 'entries';
        if (-d $dir) { $told{dirs} .= "dir\t$dir\n" }
        elsif (-e $dir || -l $dir) { $told{dirs} .= "other\t$dir\n" }
        if (-f "$dir/global/pg_control") {
            my $control = beginning("$dir/global/pg_control", 8) // '';
            length $control >= 8 or odd("$dir/global/pg_control is short");
            $told{dirs} .= "id\t$dir\t" . unpack('Q', $control) . "\n";
        }
        $told{entries} .= "$dir\n" if grep { $_ ne 'lost+found' } entries($dir);
    }
    replaced($_, $all->('dir')) for $all->('postgres');
    for ($all->('disk')) {
        my ($path, $numbers) = disk($_);
        $told{disks} .= $path;
        $told{df} .= $numbers;
    }
    my $os = content('/etc/os-release');
    $told{os} = $os =~ /\n\z/ ? $os : odd('/etc/os-release is cut off') if defined $os;
    my %line = (boot => '/proc/sys/kernel/random/boot_id', hostname => '/proc/sys/kernel/hostname');
    @line{ 'pause', 'access' } = map { $all->($_) } 'pause', 'access';
    for (sort keys %line) {
        my $line = first_line($line{$_} // next);
        $told{$_} = $line if defined $line;
    }
    my $manifest = content('/var/lib/reconcile/manifest');
    @told{ 'manifest', 'manifest.rc' } = ($manifest, "0\n") if defined $manifest;

    converse($until, @transfers, $units ? $units : ());
    my @after = map { transfer(@$_) } grep { $late->($_) } @{ $ask->{http} // [] };
    converse($until, @after);
    push @transfers, @after;
    for (@transfers) {
        my ($code, $body) = answered($_);
        $told{ $_->{what} } = $body;
        $told{http} .= "$code\t$_->{what}\t\n";
    }
    if ($units) {
        $units->{whole}->($units) or odd('systemd: cut off');
        my @blocks;
        for my $name ($all->('unit')) {
            my $of = $units->{values}{$name};
            push @blocks, join '', map { "$_=$of->{$_}\n" } sort keys %$of;
        }
        @told{ 'units', 'units.rc' } = (join("\n", @blocks), "0\n");
    }
    if ($sums) {
        while (my $line = <$sums>) {
            my ($digest, $path) = $line =~ /^([0-9a-f]{64})  (.*)\n\z/s or odd('sha256sum says something else');
            odd("$path differs") if $stat{$path} ne $digest && $stat{$path} ne '-';
            $told{sums} .= $line;
        }
        undef $summing;
        close $sums or odd('sha256sum failed');
    }
    $told{end} = now() . "\n";
    return \%told;
}

while (1) {
    my (%ask, $end);
    while (defined(my $line = <STDIN>)) {
        chomp $line;
        my ($what, @values) = split /\t/, $line, -1;
        if ($what eq 'end') { $end = $values[0]; last }
        push @{ $ask{$what} }, \@values;
    }
    exit if !defined $end;
    # Ended by it, this process lets its reader know at once.
    undef $summing;
    alarm $AT_MOST;
    my $told = eval { look(\%ask) };
    alarm 0;
    if ($told) {
        my @names = sort keys %$told;
        print join '', "\@\@probe 1\n", (map { length($told->{$_}) . " $_\n" } @names), "\@\@data\n",
          (map { $told->{$_} } @names), "\@\@end\n$end\n";
    } else {
        print "odd: ", $@ =~ s/\n.*//sr, "\n$end\n";
    }
}
