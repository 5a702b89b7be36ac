# Commits, a hook, branches, a merge, a clone, packing.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost
git init -q -b main /tmp/one
cd /tmp/one
printf '#!/bin/sh\ngit diff --cached --name-only >/dev/null\n' >.git/hooks/pre-commit
chmod +x .git/hooks/pre-commit
for number in $(seq 10); do
    echo "$number $ROUND" >"file$number"
    git add .
    git commit -q -m "commit $number"
done
git checkout -q -b side HEAD~5
echo side >side
git add side
git commit -q -m side
git checkout -q main
git merge -q --no-edit side
git clone -q file:///tmp/one /tmp/two
cd /tmp/two
git log --oneline --graph | cat
git gc -q
git fsck
