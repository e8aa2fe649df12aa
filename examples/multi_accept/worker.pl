#!/usr/bin/perl
# A worker that shares its listening sockets with others: see README.md.
# Needs Server::Starter (Debian: libserver-starter-perl).
use strict;
use warnings;
use IO::Handle;
use IO::Select;
use IO::Socket;
use POSIX qw(SIG_BLOCK SIG_UNBLOCK SIGTERM sigprocmask);
use Server::Starter qw(server_ports);
use Socket qw(SOCK_DGRAM pack_sockaddr_un);
use Time::HiRes qw(sleep);

use constant CLIENT_SECONDS => 5;

my $stopping = 0;
my $term     = POSIX::SigSet->new(SIGTERM);
$SIG{TERM} = sub { $stopping = 1 };
$SIG{PIPE} = 'IGNORE';

# sd_notify(3); a manager that is gone must not stop the service.
sub notify {
    my ($state) = @_;
    my $path = $ENV{NOTIFY_SOCKET} or return;
    $path =~ s/^@/\0/;    # an abstract name
    socket(my $socket, PF_UNIX, SOCK_DGRAM, 0) or return;
    send($socket, $state, 0, pack_sockaddr_un($path));
}

# One line in: the milliseconds of work wanted. One line out: our pid.
sub serve {
    my ($client) = @_;
    my $readable = IO::Select->new($client);
    my $line = '';
    until ($line =~ /\n/ or length $line > 32) {
        $readable->can_read(CLIENT_SECONDS) or return;
        sysread($client, $line, 32, length $line) or return;
    }
    sleep $1 / 1000 if $line =~ /^(\d+)/;
    syswrite($client, "$$\n");
    # Closing with bytes unread would send a reset, which can overtake the answer.
    shutdown($client, 1);
    while ($readable->can_read(CLIENT_SECONDS)) { sysread($client, $line, 256) or last }
}

my $ports     = server_ports();
my @listeners = map { IO::Socket->new_from_fd($_, 'r+') or die "descriptor $_: $!" } values %$ports;

# Another worker may take the connection between our select and our accept.
$_->blocking(0) for @listeners;
my $acceptable = IO::Select->new(@listeners);
notify('READY=1');
until ($stopping) {
    # Perl sees a signal between two operations only: one that comes just before the wait
    # would be noticed by the next client, if the wait had no end.
    my ($listener) = $acceptable->can_read(1) or next;
    accept(my $client, $listener) or next;
    sigprocmask(SIG_BLOCK, $term);    # it would interrupt a read or a sleep
    serve($client);
    sigprocmask(SIG_UNBLOCK, $term);
}
