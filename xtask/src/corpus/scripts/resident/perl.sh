# A parent and its children, with compiled modules; one in a chroot, with the C library of that.
cat >/tmp/work.pl <<'PERL'
use strict; use warnings;
use POSIX qw(uname); use Digest::SHA qw(sha256_hex); use Socket; use List::Util qw(sum);
use Storable qw(freeze thaw); use Time::HiRes qw(sleep); use IO::Compress::Gzip qw(gzip); use Encode;
for (1 .. 4) {
    next if fork // die;
    while (1) {
        my $sum = sum(1 .. 1000);
        gzip(\('x' x 10000), \my $out) or die;
        sha256_hex($out), thaw(freeze([1, $sum]));
        sleep 0.7;
    }
}
wait;
die 'failed: a child ended';
PERL
perl /tmp/work.pl &
chroot /srv/minbase perl -e 'while (1) { select undef, undef, undef, 1 }' &
stay
