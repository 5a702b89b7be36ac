# A second Debian inside this one, as debootstrap made it.
inside() { chroot /srv/minbase "$@"; }
mount -t proc proc /srv/minbase/proc
inside /bin/sh -c 'id; ls -l /bin/ | sort | uniq | wc -l; dpkg -l | tail -1; apt-get --version | head -1'
inside perl -e 'use POSIX; print join(" ", POSIX::uname()), "\n"'
inside ldconfig
inside useradd -m "someone$ROUND"
inside su "someone$ROUND" -c 'cd; echo $HOME; tar cf - /etc/passwd | gzip | zcat | tar tf -'
inside userdel -r "someone$ROUND" 2>/dev/null
inside dpkg --configure -a
