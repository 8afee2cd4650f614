# Behaves like the official image as far as the tests need it: POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB and
# POSTGRES_HOST_AUTH_METHOD on the first start, arguments beginning with - are for the server.
set -eu

case "${1:-}" in
    "" | -*) set -- postgres "$@" ;;
esac
if [ "$1" = postgres ]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        : "${POSTGRES_PASSWORD:?the superuser needs a password: -e POSTGRES_PASSWORD=...}"
        secret=$(mktemp)
        printf '%s\n' "$POSTGRES_PASSWORD" > "$secret"
        initdb -D "$PGDATA" --username="$user" --pwfile="$secret" --auth-local=trust --auth-host=scram-sha-256 \
            --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync --no-instructions
        rm "$secret"
        printf 'host all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
        if [ "$database" != postgres ]; then
            printf 'CREATE DATABASE "%s"\n' "$database" | postgres --single -D "$PGDATA" -j postgres > /dev/null
        fi
    fi
    shift
    set -- postgres -c "listen_addresses=*" -c "unix_socket_directories=/var/run/postgresql" "$@"
fi
exec "$@"
