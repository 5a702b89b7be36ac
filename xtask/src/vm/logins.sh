#!/bin/sh
# In a guest: logs in so often with the sensor attached, then a fifth as often while it comes and goes.
# Ends with 0 if every login went well and the sensor has told of each.
set -u
logins=$1 user=$2
root=/tmp/openssh
lab=$root/lab
# Of another release: not each has a client with its server.
client=/client
agent=/agent/halfsecond
config=/run/halfsecond.toml

say() { echo "logins: $*"; }
fail() {
	say "FAILED: $*"
	[ -f "$lab/sshd.log" ] && tail -n 30 "$lab/sshd.log"
	[ -f /run/halfsecond.log ] && tail -n 30 /run/halfsecond.log
	exit 1
}
inside() { chroot $root /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root "$@"; }
outside() { chroot $client /usr/bin/env -i PATH=/usr/bin HOME=/root "$@"; }
tail() { inside tail "$1" "$2" <"$3"; }

# The first file system has no identity that a probe could be attached by in older kernels.
prepare() {
	cp -a /openssh $root && rm -rf /openssh || return 1
	mkdir -p $lab $root/proc $root/sys $root/dev $root/run/sshd $root/tmp /run/state
	mkdir -p $client/lab $client/proc $client/dev $client/tmp
	for place in $root $client; do
		mount --rbind /proc $place/proc && mount --rbind /dev $place/dev || return 1
	done
	inside chmod 755 /run/sshd && inside chmod 1777 /tmp || return 1
	inside ssh-keygen -q -t ed25519 -N '' -f /lab/host || return 1
	inside ssh-keygen -q -t ed25519 -N '' -f /lab/key || return 1
	# Read as the user, as any key's file is.
	cp $lab/key.pub $lab/authorized_keys && inside chmod 644 /lab/authorized_keys || return 1
	inside chmod 600 /lab/host || return 1
	cp $lab/key $lab/key.pub $client/lab
	echo "$user-password" >$client/lab/password
	printf '#!/bin/sh\nexec cat /lab/password\n' >$client/lab/askpass
	outside chmod -R go= /lab && outside chmod 700 /lab/askpass || return 1
	inside sh -c "echo '$user:$user-password' | chpasswd" || return 1
	cat >$lab/sshd_config <<-END
		ListenAddress 127.0.0.1
		Port 2222
		PidFile none
		UseDNS no
		UsePAM yes
		PrintMotd no
		HostKey /lab/host
		AuthorizedKeysFile /lab/authorized_keys
		StrictModes no
		MaxStartups 100
		LoginGraceTime 600
	END
	# Failures would make it drop later connections unseen; older ones do not know the word.
	if inside grep -q PerSourcePenalties /usr/sbin/sshd; then
		echo 'PerSourcePenalties no' >>$lab/sshd_config
	fi
	inside /usr/sbin/sshd -D -e -f /lab/sshd_config 2>>$lab/sshd.log &
	echo 'state_dir = "/run/state"' >$config
}

# ready: whether the sensor says so.
ready() {
	inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/9477 || exit 1
		printf "GET /readyz HTTP/1.0\r\n\r\n" >&3; read -r version code rest <&3; [ "$code" = 200 ]' \
		2>/dev/null
}

start_sensor() {
	$agent run --config $config >/run/incidents 2>>/run/halfsecond.log &
	sensor=$!
	for _ in $(seq 600); do
		ready && return 0
		sleep 1
	done
	return 1
}

stop_sensor() {
	kill "$sensor"
	wait "$sensor"
}

# log_in CLIENT HOW_OFTEN: with a key and with a password in turn; a line for each that fails.
log_in() {
	outside env LAB_USER="$user" CLIENT="$1" TIMES="$2" DISPLAY=: SSH_ASKPASS=/lab/askpass \
		SSH_ASKPASS_REQUIRE=force bash -c '
		common="-F none -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
			-o ConnectTimeout=300 -l $LAB_USER"
		for ((n = CLIENT; n < TIMES + CLIENT; n++)); do
			if ((n % 2)); then
				how="-i /lab/key -o IdentitiesOnly=yes -o PreferredAuthentications=publickey"
			else
				how="-o PreferredAuthentications=password -o PubkeyAuthentication=no"
			fi
			said=$(setsid -w ssh $common $how 127.0.0.1 "echo in" 2>&1 </dev/null)
			if [[ $said == in ]]; then echo ok; else echo "failed: $said" | tr "\n" " "; echo; fi
			((n % 25)) || echo "logins: client $CLIENT at $n of $TIMES" >/dev/console
		done' >"/run/client-$1"
}

# both HOW_OFTEN: two clients share them.
both() {
	log_in 0 $(($1 / 2)) &
	first=$!
	log_in 1 $(($1 - $1 / 2)) &
	second=$!
	wait $first
	wait $second
}

# count TEXT FILE...: lines that are or begin so.
count() {
	text=$1
	shift
	cat "$@" | inside grep -c "^$text"
}

# What the sensor has told of, in all.
told() { $agent logins --config $config --json | inside grep -c '"outcome":"accepted"'; }

prepare || fail "the laboratory cannot be made"
start_sensor || fail "the sensor is not ready"
say "the sensor is ready; $logins logins"
both "$logins"
good=$(count ok /run/client-0 /run/client-1)
bad=$(count failed /run/client-0 /run/client-1)
for _ in $(seq 60); do
	known=$(told)
	[ "$known" -ge "$logins" ] && break
	sleep 1
done
say "attached: $good good, $bad failed, $known told as accepted"
if [ "$known" -lt "$logins" ]; then
	say "what was told instead:"
	$agent logins --config $config --json | inside grep -o '"outcome":"[^"]*"' | inside sort |
		inside uniq -c
	inside grep -E 'WARN|ERROR' </run/halfsecond.log | inside tail -n 20
fi
cat /run/client-0 /run/client-1 | inside grep '^failed' | inside head -n 5
stop_sensor || fail "the sensor ended with an error"

comings=0
both $((logins / 5)) &
clients=$!
while kill -0 $clients 2>/dev/null; do
	start_sensor || fail "the sensor is not ready again"
	comings=$((comings + 1))
	sleep 10
	stop_sensor || fail "the sensor ended with an error"
done
wait $clients
again=$(count ok /run/client-0 /run/client-1)
lost=$(count failed /run/client-0 /run/client-1)
say "coming and going: $again good, $lost failed, $comings sensors"

leaked=$(inside dmesg | inside grep -c 'leaking uprobe')
# sshd's words for a child that seccomp has ended, and the kernel's.
killed=$(inside grep -c 'terminated by signal\|Bad system call' <$lab/sshd.log)
audited=$(inside dmesg | inside grep -c 'sig=31')
say "ended by seccomp: $killed by sshd's log, $audited by the kernel's; uprobes left behind: $leaked"
[ "$good" = "$logins" ] && [ "$bad" = 0 ] && [ "$known" = "$logins" ] && [ "$lost" = 0 ] &&
	[ "$again" = $((logins / 5)) ] && [ "$killed" = 0 ] && [ "$audited" = 0 ] && [ $comings -ge 2 ] ||
	fail "see above"
