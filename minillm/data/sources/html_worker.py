"""The process that takes the text out of HTML pages: html.py starts it, and it ends at a page that costs too much.

A page on its standard input is a head (of HEAD: bytes, 1 for all text, seconds) and the bytes; the answer is the length
of a text and the text in UTF-8. Only a process can be stopped within a library: the kernel ends this one when a page
has had its seconds of CPU time, and refuses it more memory than MEMORY.
"""
import resource
import signal
import struct
import sys

HEAD, LENGTH = struct.Struct("<Q?d"), struct.Struct("<Q")
MEMORY = 2 ** 30


def main() -> None:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while head := sys.stdin.buffer.read(HEAD.size):
        size, all_text, seconds = HEAD.unpack(head)
        page = sys.stdin.buffer.read(size)
        signal.setitimer(signal.ITIMER_PROF, seconds)           # its signal ends the process
        html = bytes_to_str(page, detect_encoding(page) or "utf-8")
        text = extract_plain_text(html, main_content=not all_text, alt_texts=False).encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(LENGTH.pack(len(text)) + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
