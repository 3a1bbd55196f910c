"""What the safety pack knows of Python's modules: tables, and nothing else. A module in none of them is refused."""

# ruff: noqa: SIM905, E501 - tables of words are read as words
from __future__ import annotations

PURE = frozenset(
    """json re math cmath csv collections collections.abc itertools functools datetime statistics string textwrap hashlib hmac
    random time typing dataclasses decimal fractions enum fnmatch uuid base64 binascii zlib pprint difflib unicodedata heapq
    bisect copy struct html html.parser xml xml.etree xml.etree.ElementTree configparser tomllib calendar platform numbers
    abc contextlib operator argparse locale graphlib array zoneinfo secrets quopri colorsys keyword token ast
    urllib.parse email email.message email.policy email.parser email.utils __future__ concurrent.futures threading queue
    statistics types reprlib stringprep ipaddress mimetypes shlex warnings traceback numpy pandas matplotlib
    matplotlib.pyplot scipy scipy.stats sklearn dateutil dateutil.parser tqdm tabulate attr attrs more_itertools
    """.split()
)
"""Modules that only compute, apart from what stands in ``DENIED_ATTRIBUTES``."""

LIMITED: dict[str, frozenset[str]] = {
    "os": frozenset(
        """getcwd listdir walk scandir stat lstat sep linesep pathsep curdir pardir extsep altsep name cpu_count getpid fspath
        makedirs mkdir rename replace remove unlink rmdir removedirs access R_OK W_OK X_OK F_OK path getenv environ PathLike
        DirEntry utime truncate fsencode fsdecode get_terminal_size symlink link chmod""".split()
    ),
    "os.path": frozenset(
        """join basename dirname exists isfile isdir islink getsize getmtime getctime getatime splitext split abspath normpath
        relpath commonpath commonprefix sep expanduser realpath samefile isabs lexists normcase""".split()
    ),
    "sys": frozenset(
        """argv exit stdin stdout stderr version version_info platform maxsize getsizeof byteorder executable
        getrecursionlimit float_info int_info implementation getdefaultencoding hexversion maxunicode""".split()
    ),
    "pathlib": frozenset("Path PurePath PosixPath PurePosixPath".split()),
    "glob": frozenset(("glob", "iglob", "escape")),
    "shutil": frozenset(
        "copy copy2 copyfile copytree move disk_usage which get_terminal_size rmtree copyfileobj".split()
    ),
    "io": frozenset(
        "StringIO BytesIO TextIOWrapper BufferedReader SEEK_SET SEEK_END SEEK_CUR DEFAULT_BUFFER_SIZE".split()
    ),
    "logging": frozenset(
        """getLogger info warning error debug critical exception basicConfig INFO DEBUG WARNING ERROR CRITICAL Formatter
        StreamHandler Logger NullHandler log""".split()
    ),
    "gzip": frozenset(("open", "compress", "decompress")),
    "bz2": frozenset(("open", "compress", "decompress")),
    "lzma": frozenset(("open", "compress", "decompress")),
    "zipfile": frozenset(("ZipFile", "is_zipfile", "ZIP_DEFLATED", "ZIP_STORED", "BadZipFile", "Path")),
    "tarfile": frozenset(("open", "is_tarfile", "TarError")),
    "asyncio": frozenset(
        """run sleep gather create_task Queue Lock Semaphore Event wait wait_for TimeoutError timeout TaskGroup to_thread
        get_event_loop get_running_loop new_event_loop iscoroutinefunction CancelledError as_completed""".split()
    ),
    "yaml": frozenset(("safe_load", "safe_dump", "YAMLError", "safe_load_all")),
    "toml": frozenset(("loads", "dumps")),
}
"""Modules of which only these names may be used."""

DENIED_ATTRIBUTES: dict[str, frozenset[str]] = {
    "operator": frozenset(("attrgetter", "methodcaller")),
    "string": frozenset(("Formatter",)),
    "argparse": frozenset(("FileType",)),
    "types": frozenset(("FunctionType", "CodeType", "LambdaType", "ModuleType", "MethodType")),
    "typing": frozenset(("get_type_hints", "ForwardRef")),
    "numpy": frozenset(
        """load save savez savez_compressed savetxt loadtxt genfromtxt fromfile memmap ctypeslib lib f2py testing distutils core
        compat DataSource fromregex tofile""".split()
    ),
    "pandas": frozenset(
        """ExcelWriter ExcelFile read_pickle read_sql read_sql_query read_sql_table eval io compat core util to_pickle read_clipboard HDFStore
        read_hdf read_html read_xml read_gbq""".split()
    ),
    "matplotlib.pyplot": frozenset(("imread", "imsave", "style", "rcParams", "switch_backend", "matplotlib")),
    "shlex": frozenset(),
    "urllib.parse": frozenset(),
    "ast": frozenset(),
    "mimetypes": frozenset(("read_mime_types", "init", "MimeTypes")),
    "platform": frozenset(("popen",)),
    "uuid": frozenset(),
    "warnings": frozenset(),
    "traceback": frozenset(("walk_stack", "extract_stack")),
    "sklearn": frozenset(("externals", "utils")),
    "contextlib": frozenset(),
    "functools": frozenset(),
    "fileinput": frozenset(("input",)),
}

DANGERS: dict[str, tuple[str, str]] = {}
for _names, _code, _why in (
    ("subprocess pty pexpect sh plumbum invoke fabric commands popen2 os.system posix nt _posixsubprocess", "python.process",
     "it runs other programs"),
    ("ctypes cffi mmap _ctypes gc _thread faulthandler", "python.native", "it reaches below Python"),
    ("socket ssl requests urllib.request urllib urllib3 http http.client http.server httpx aiohttp ftplib smtplib telnetlib"
     " poplib imaplib xmlrpc xmlrpc.client socketserver paramiko websocket websockets boto3 pycurl nntplib asyncssh select"
     " webbrowser slack_sdk google.cloud azure", "python.network", "it speaks to the network"),
    ("pickle marshal shelve dill cloudpickle joblib jsonpickle importlib runpy code codeop pdb timeit cProfile trace imp"
     " zipimport pkgutil builtins inspect sysconfig site pydoc doctest bdb profile", "python.undecidable",
     "it runs code that is not seen here"),
    ("sqlite3 psycopg2 psycopg pymysql sqlalchemy mysql pymongo redis duckdb", "python.database",
     "it works on a database, where its SQL is not seen"),
    ("multiprocessing signal resource pwd grp spwd crypt keyring winreg atexit", "python.system", "it reaches the system"),
):  # fmt: skip
    DANGERS.update(dict.fromkeys(_names.split(), (_code, _why)))

NAMES_REFUSED = frozenset(
    """eval exec compile __import__ globals locals vars breakpoint setattr delattr memoryview help license credits copyright
    exit_ input_ __builtins__ __loader__ __spec__ __debug__hook""".split()
)
DUNDERS_ALLOWED = frozenset(
    ("__name__", "__file__", "__doc__", "__init__", "__version__", "__all__", "__annotations__")
)
ATTRIBUTES_REFUSED = frozenset(
    """gi_frame gi_code f_globals f_locals f_builtins f_back tb_frame cr_frame ag_frame func_globals func_code system popen
    Popen check_output check_call spawnl spawnv fork execv execve execl modules settrace setprofile load_module exec_module
    environb putenv _exit kill killpg abort startfile eval exec run_module run_path create_subprocess_shell
    create_subprocess_exec subprocess_exec subprocess_shell run_in_executor get_field format_map extractall extract
    to_pickle to_sql to_hdf to_clipboard to_gbq to_stata to_orc to_latex to_xml tofile dump_file set_start_method sendfile connect sendto urlopen urlretrieve Process""".split()
)
