"""Questions of `--dataset-name chat`: the built-in model knows about them, and so do others."""

QUESTIONS = (
    "What does itertools.chain do?",
    "How do I read a JSON file?",
    "What does functools.lru_cache do?",
    "How do I sort a list of tuples by the second item?",
    "What is collections.Counter for?",
    "How do I split a string at commas?",
    "What does os.path.join do?",
    "How do I get the current time?",
    "What does enumerate do?",
    "How do I copy a file?",
    "What is a dataclass?",
    "How do I run a command and read its output?",
    "What does re.sub do?",
    "How do I parse command line arguments?",
    "What does zip do?",
    "How do I find all files in a folder that end in .txt?",
)
