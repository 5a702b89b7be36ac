# Another date for a shell, python, perl, git and a compiler.
cd /tmp
faketime '2020-01-01 00:00:00' date | grep 2020
faketime -f '-1d' python3 -c 'import datetime; print(datetime.date.today())'
faketime '2020-01-01 00:00:00' perl -e 'print scalar localtime, "\n"' | grep 2020
printf 'int main(void) { return 0; }\n' >main.c
faketime '2020-01-01 00:00:00' gcc -o main main.c
faketime '2020-01-01 00:00:00' sh -c 'git init -q repo && cd repo && git -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m a && git log | grep 2020'
