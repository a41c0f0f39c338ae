# What the stages share; sourced by each of them, from the top of the repository. Owns: how programs get onto the
# machine and where the tests find them. Must never: name a mirror, or go on without what was asked for.
set -euo pipefail

target=${CARGO_TARGET_DIR:-target}
host=x86_64-unknown-linux-gnu
apt=(-qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)

fail() {
  echo "FAIL $*" >&2
  exit 1
}

# What a stage installs it installs before this line: `.ci/run` has that done beforehand.
ready() {
  [[ ${CI_INSTALLS:-} != only ]] || exit 0
}

# packages NAME...: Debian packages that must be there.
packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  apt_update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${apt[@]}" "${missing[@]}" >"$CI_SCRATCH/apt.log" 2>&1 ||
    { tail -n 20 "$CI_SCRATCH/apt.log" >&2; fail "cannot install ${missing[*]}"; }
  echo "installed ${missing[*]}"
}

# Once in a run of the gate.
apt_update() {
  [[ -e $CI_SCRATCH/apt-updated ]] && return
  apt-get update "${apt[@]}" || fail "apt-get update"
  touch "$CI_SCRATCH/apt-updated"
}

# venv NAME REQUIREMENTS: a virtual environment with exactly these; sets $python.
venv() {
  python=$target/$1-venv/bin/python
  if ! cmp -s "$2" "$target/$1-venv/requirements.txt"; then
    packages python3-venv
    rm -rf "${target:?}/$1-venv"
    python3 -m venv "$target/$1-venv"
    "$python" -m pip install -q --disable-pip-version-check -r "$2"
    cp "$2" "$target/$1-venv/requirements.txt"
  fi
}

# test_program NAME [OPTION...]: the tests of that name, built with these options of cargo; sets $tests to their program.
test_program() {
  packages build-essential
  tests=$(cargo test -q --locked --no-run --message-format json --test "$@" |
    sed -n "s/.*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1)
  [[ -x $tests ]] || fail "the tests $1 were not built"
}

# The one binary that all stages run: static, as it is shipped, but optimised less. Sets COVEY_BIN.
covey() {
  packages build-essential
  RUSTFLAGS='-C target-feature=+crt-static' cargo build -q --locked --profile ci --target "$host" --bin covey
  COVEY_BIN=$(realpath "$target/$host/ci/covey")
  export COVEY_BIN
}

# What the next one needs.
cross_tools() {
  packages rustc-web cargo-web rust-web-src file binutils
  venv cross .ci/cross-requirements.txt
}

# cross TARGET PROFILE: the binary for a target of the kind that is released, static with musl; sets $built. Debian's compiler comes with
# the standard library as source, so that it builds for any target; zig brings the C compiler and musl for all of them, so that no other is
# needed. Of no path of this machine is anything left in the binary, and no time: the same commit gives the same bytes wherever it is built.
cross() {
  local tools flags directory crates
  cross_tools
  tools=$(realpath "$target/cross-venv/bin")
  directory=$(realpath "$target")
  # Nothing unwinds: a panic aborts, and says where it was without that. The tables for it would be 0.6 MB.
  flags="-C target-feature=+crt-static -C link-self-contained=no -C force-unwind-tables=no"
  flags+=" --remap-path-prefix=$PWD=/covey --remap-path-prefix=$directory=/covey/target"
  /usr/bin/cargo fetch -q --locked
  for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags+=" --remap-path-prefix=$crates=/crates"
  done
  env PATH="$tools:$PATH" RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" \
    CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
    "$tools/cargo-zigbuild" zigbuild -q --locked --profile "$2" -Z build-std=std,panic_abort --target "$1" --bin covey
  built=$directory/$1/$2/covey
  is_static "$built" || fail "$1: $(file -L "$built")"
}

# Both must agree: what `file` calls static, and no interpreter or library asked for.
is_static() {
  file -L "$1" | grep -Eq 'statically linked|static-pie linked' &&
    [[ ! $(readelf --program-headers "$1" | grep INTERP) && ! $(readelf --dynamic "$1" | grep NEEDED) ]]
}

# Sets PROMTOOL_BIN. Debian's package would start a server that listens everywhere; so it is unpacked beside our build, not installed.
promtool() {
  local directory=$target/promtool download=$CI_SCRATCH/promtool
  if [[ ! -x $directory/usr/bin/promtool ]]; then
    apt_update
    mkdir -p "$download"
    rm -rf "$directory.part"
    (cd "$download" && apt-get download "${apt[@]}" -o APT::Sandbox::User=root prometheus) || fail "apt-get download prometheus"
    dpkg -x "$download"/prometheus_*.deb "$directory.part"
    "$directory.part/usr/bin/promtool" --version >/dev/null || fail "promtool does not run"
    mv -T "$directory.part" "$directory"
  fi
  PROMTOOL_BIN=$(realpath "$directory/usr/bin/promtool")
  export PROMTOOL_BIN
}

# Sets ETCD_BIN and ETCDCTL_BIN. Debian 12 has etcd 3.4, and covey follows a later API; so etcd 3.5 is taken from
# newer suites of the machine's own mirror and unpacked beside our build, not installed. 3.4 is the fallback:
# it answers the tests' commands the same, but for the header of alarm lists.
etcd() {
  local directory=$target/etcd-3.5 suite
  for suite in sid trixie; do
    [[ -x $directory/usr/bin/etcd ]] && break
    unpack_etcd "$suite" "$directory" || echo "no etcd 3.5 from $suite"
  done
  if [[ ! -x $directory/usr/bin/etcd ]]; then
    packages etcd-server etcd-client
    directory=
  fi
  ETCD_BIN=$(realpath "$directory/usr/bin/etcd")
  ETCDCTL_BIN=$(realpath "$directory/usr/bin/etcdctl")
  export ETCD_BIN ETCDCTL_BIN
  echo "etcd for comparison: $("$ETCD_BIN" --version | head -n 1)"
}

# Where the machine has Debian's packages from.
mirror() {
  [[ $(apt-get indextargets 'Identifier: Packages') ]] || apt_update
  apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1
}

# unpack_etcd SUITE DIRECTORY: with package lists of its own, so that the machine keeps its suite.
unpack_etcd() {
  local lists=$CI_SCRATCH/$1 mirror options deb
  rm -rf "$2.part"
  packages ca-certificates
  mirror=$(mirror)
  [[ $mirror ]] || return 1
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial" "$2.part"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$lists/sources.list"
  options=("${apt[@]}" -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$lists/lists" -o Dir::Cache="$lists/cache" -o APT::Sandbox::User=root)
  apt-get update "${options[@]}" && (cd "$lists" && apt-get download "${options[@]}" etcd-server etcd-client) || return 1
  for deb in "$lists"/etcd-*.deb; do
    [[ $(dpkg-deb -f "$deb" Version) = 3.5.* ]] || return 1
    dpkg -x "$deb" "$2.part"
  done
  # A newer suite may want a newer libc than this machine has.
  "$2.part/usr/bin/etcd" --version >/dev/null && "$2.part/usr/bin/etcdctl" version >/dev/null || return 1
  mv -T "$2.part" "$2"
}
