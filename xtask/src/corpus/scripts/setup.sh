# Installs what /corpus/wanted names, and downloads what /corpus/reinstall names once more: the
# workloads have no network.
#
# Nothing starts here by itself, and no database is made that nobody uses.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
dpkg --configure -a
apt-get -q update
apt-get -q -y -o Dpkg::Options::=--force-confold --no-install-recommends install $(cat /corpus/wanted)
apt-get clean
apt-get -q -y --reinstall --download-only install $(cat /corpus/reinstall)
