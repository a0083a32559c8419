# Brings the application of compose.yaml up, looks at it, and takes it down; $1 is how compose is called.
set -eu
compose="$1 -f $2/compose.yaml"
has() { grep -q -- "$1" "$W/said" || { echo "no '$1' in:"; cat "$W/said"; exit 1; }; }
$compose up -d --wait --quiet-pull
$compose ps --format '{{.Service}} {{.State}} {{.Health}}' >"$W/said"
has 'db running healthy' && has 'worker running healthy' && has 'web running'
curl -s --max-time 5 http://127.0.0.1:8095/ >"$W/said"; has 'from the database'
$compose exec -T web wget -q -O - http://worker:1/ >"$W/said" 2>&1 || true; has 'refused'
$compose exec -T web sh -c 'wget -q -T 3 -O - http://db:5432/ || echo unreachable' >"$W/said" 2>&1; has 'unreachable'
$compose exec -T worker sh -c 'echo $NAME; exit 5' >"$W/said" && exit 1 || [ $? = 5 ]; has '^worker$'
$compose logs worker >"$W/said"; has 'written by worker'
$compose logs --no-color --tail 1 db >/dev/null
$compose top web >"$W/said"; has httpd
$compose port web 80 >"$W/said"; has '127.0.0.1:8095'
$compose config --services >"$W/said"; has worker
$compose images >"$W/said"; has busybox
$compose stop -t 0 worker && $compose start worker
$compose restart -t 0 web
$compose pause web && $compose unpause web
$compose kill db
$compose up -d --wait
$compose up -d --wait --scale worker=2
$compose ps -a --format '{{.Name}}' >"$W/said"; has 'app-worker-2'
$compose cp worker:/pages/index.html "$W/copied" && grep -q 'from the database' "$W/copied"
$compose run --rm -T --no-deps web echo once >"$W/said" 2>/dev/null; has once
$compose ls >"$W/said"; has app
$compose down -t 0
[ "$(docker volume ls -q | grep -c '^app_')" = 2 ]
$compose up -d --wait
curl -s --max-time 5 http://127.0.0.1:8095/ >"$W/said"; has 'from the database'
$compose down -v -t 0 --remove-orphans
docker ps -aq >"$W/said"; docker volume ls -q >>"$W/said"; docker network ls -q --filter type=custom >>"$W/said"
[ ! -s "$W/said" ] || { echo 'left:'; cat "$W/said"; exit 1; }
echo done
