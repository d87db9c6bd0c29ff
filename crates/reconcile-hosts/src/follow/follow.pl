# Runs one command and lets it write to our standard output, until it ends or the connection does:
# at the end of our input, or after 60 s without a sign of life, the command is ended as well.
# Nothing is written on the server, and nothing stays there.
#
# Input: lines `word WORD`, the command's words, then `go`; afterwards anything is a sign of life.
use strict;
use warnings;
use Errno qw(EINTR);
use POSIX qw(WNOHANG);

my $SILENCE = 60;
my $GRACE   = 3;
$0 = 'reconcile-follow';

my @words;
while (my $line = <STDIN>) {
    chomp $line;
    last if $line eq 'go';
    push @words, $1 if $line =~ /^word (.*)$/;
}
exit 2 if !@words;

# A handler, so that select wakes up.
$SIG{CHLD} = sub { };
my $child = fork // die "fork: $!\n";
if (!$child) {
    setpgrp 0, 0;
    open STDIN, '<', '/dev/null' or die "/dev/null: $!\n";
    open STDERR, '>&', \*STDOUT or die "standard error: $!\n";
    exec { $words[0] } @words or print "cannot run $words[0]: $!\n";
    exit 127;
}
# Only the command holds standard output now, so that its end is the stream's end.
open STDOUT, '>', '/dev/null' or die "/dev/null: $!\n";

sub end_it {
    for my $signal ('TERM', 'KILL') {
        kill $signal, -$child;
        kill $signal, $child;
        for (1 .. $GRACE * 10) {
            exit 0 if waitpid($child, WNOHANG) != 0;
            select undef, undef, undef, 0.1;
        }
    }
    exit 0;
}
$SIG{$_} = \&end_it for 'TERM', 'HUP', 'INT', 'PIPE';

my $heard = time;
while (1) {
    if (waitpid($child, WNOHANG) == $child) {
        exit($? & 127 ? 128 + ($? & 127) : $? >> 8);
    }
    my $fds = '';
    vec($fds, fileno STDIN, 1) = 1;
    my $count = select $fds, undef, undef, 1;
    if ($count > 0) {
        my $read = sysread STDIN, my $line, 4096;
        next if !defined $read && $! == EINTR;
        end_it() if !$read;
        $heard = time;
    }
    end_it() if time - $heard >= $SILENCE;
}
__END__
