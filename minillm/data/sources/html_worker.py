"""The process that takes the text out of HTML pages: html.py starts it, and it ends at a page that costs too much.

A page on its standard input is a length (LENGTH) and so many bytes: a head (of HEAD: 1 for all text, seconds) and the
page's own; the answer is the length of a text and the text in UTF-8. Only a process can be stopped within a library:
the kernel ends this one when a page has had its seconds of CPU time, and refuses it more memory than MEMORY.
"""
import resource
import signal
import struct
import sys

LENGTH, HEAD = struct.Struct("<Q"), struct.Struct("<?d")
MEMORY = 2 ** 30


def main() -> None:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while length := sys.stdin.buffer.read(LENGTH.size):
        all_text, seconds = HEAD.unpack(sys.stdin.buffer.read(HEAD.size))
        page = sys.stdin.buffer.read(LENGTH.unpack(length)[0] - HEAD.size)
        signal.setitimer(signal.ITIMER_PROF, seconds)           # its signal ends the process
        html = bytes_to_str(page, detect_encoding(page) or "utf-8")
        text = extract_plain_text(html, main_content=not all_text, alt_texts=False).encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(LENGTH.pack(len(text)) + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
