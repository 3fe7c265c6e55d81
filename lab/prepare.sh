# Sourced with $checkout set: what the lab and the tests need on a Debian 12 machine.
#   prepare PACKAGE...   installs what is missing of the lab's packages and of these, makes the
#                        virtual environment $VENV and installs the checkout into it
# Nothing that is there already is touched, and no service is left running.

VENV=${VENV:-$checkout/.venv}
LAB_PACKAGES="python3-venv iproute2 util-linux nftables bridge-utils iputils-ping iputils-arping
    ethtool tcpdump iperf3 lxc busybox-static dnsmasq-base"

say() { printf '%s\n' "$*" >&2; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Packages of servers start them when they are installed, unless policy-rc.d says no (101).
install_packages() {
    say "Installing packages: $*"
    policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "$@" >&2
    [ -z "$policy" ] || rm -f "$policy"
    trap - EXIT HUP INT TERM
    # Nor at the next start of the machine: the lab runs its own.
    for service in coturn openvpn tinc; do
        case " $* " in
        *" $service "*) systemctl --quiet disable $service 2>/dev/null || true ;;
        esac
    done
}

make_environment() {
    wanted=$(cksum <"$checkout/pyproject.toml")
    [ "$(cat "$VENV/switchmode" 2>/dev/null)" != "$wanted" ] || return 0
    say "Making the virtual environment $VENV"
    python=/usr/bin/python3
    [ -x $python ] || python=python3
    [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --root-user-action=ignore --editable "$checkout[test,check]" >&2
    printf '%s\n' "$wanted" >"$VENV/switchmode"
}

prepare() {
    if [ "$(id -u)" = 0 ] && command -v dpkg-query >/dev/null; then
        missing=
        for package in $LAB_PACKAGES "$@"; do
            installed "$package" || missing="$missing $package"
        done
        # shellcheck disable=SC2086  # words
        [ -z "$missing" ] || install_packages $missing
    fi
    make_environment
}

need_root() {
    [ "$(id -u)" = 0 ] || {
        say "$0: needs root, for namespaces and bridges: sudo $0"
        exit 1
    }
}
