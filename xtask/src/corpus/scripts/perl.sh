# Compiled modules, children, sockets, compression.
cat >/tmp/work.pl <<'EOF'
use strict; use warnings;
use POSIX qw(uname); use Digest::SHA qw(sha256_hex); use Socket; use File::Find;
use List::Util qw(sum); use Storable qw(freeze thaw); use Time::HiRes qw(time);
use IO::Compress::Gzip qw(gzip); use Encode; use Data::Dumper;
my $files = 0;
find(sub { $files++ }, '/usr/share/perl');
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die;
my $child = fork // die;
if (!$child) { print $b sum(1 .. 100), "\n"; close $b; exit 0 }
close $b;
my $sum = <$a>;
waitpid $child, 0;
die unless $sum == 5050;
gzip(\('x' x 100000), \my $out) or die;
print "$files ", sha256_hex($out), ' ', (uname)[2], ' ', scalar @{thaw(freeze([1, 2]))}, "\n";
print `uname -m`;
EOF
perl /tmp/work.pl
perl -MCPAN::Meta -MHTTP::Tiny -e 'print HTTP::Tiny->VERSION, "\n"'
