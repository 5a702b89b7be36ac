# A daemon that is asked.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost
git init -q -b main /tmp/repos/one
cd /tmp/repos/one
echo "$ROUND" >file
git add .
git commit -q -m one
git daemon --export-all --base-path=/tmp/repos --listen=127.0.0.1 --reuseaddr &
while ! git ls-remote -q git://127.0.0.1/one >/dev/null 2>&1; do sleep 0.2; done
every 2 git ls-remote -q git://127.0.0.1/one
every 5 git gc -q
stay
