"""Writes a Llama-shaped model of random weights as a GGUF file of 0.7 MB that llama.cpp and Ollama load.

    tiny_gguf.py OUT

It knows one token per character (ASCII and Russian letters), so every prompt fits its context, and it has learnt nothing. Two things are
not left to chance, so that answers end soon: a closing quote or bracket is likelier than other characters, and raw bytes never come up.
The layout follows https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3).
"""

import random
import struct
import sys
from array import array

LAYERS, WIDTH, HEADS, CONTEXT = 2, 64, 4, 8192
HIDDEN = 4 * WIDTH
# Every embedding holds this much in its first place. It passes through all layers, so the first column of the output matrix acts as a
# bias: what stands there for a token makes it likelier or rarer whatever the text.
CONSTANT = 6.0

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # token types of llama.cpp


def vocabulary():
    """(text, type, bias) of each token; the position is its id."""
    yield "<unk>", UNKNOWN, -30.0
    yield "<s>", CONTROL, -30.0
    yield "</s>", CONTROL, 0.2
    yield "<|im_start|>", CONTROL, -30.0
    yield "<|im_end|>", CONTROL, 0.2
    for byte in range(256):
        yield f"<0x{byte:02X}>", BYTE, -30.0
    closing = {'"': 0.8, "}": 0.8, "]": 0.8}
    ascii_letters = [chr(code) for code in range(33, 127)]
    russian = [chr(code) for code in (0x401, *range(0x410, 0x450), 0x451)]
    for char in ascii_letters + ["\u2581"] + russian:  # U+2581 stands for the space
        yield char, NORMAL, closing.get(char, 0.0)


def tensors(biases):
    """(name, dimensions with the innermost first, values)"""
    chance = random.Random(7)

    def noise(rows, columns, spread):
        return array("f", (chance.gauss(0, spread) for _ in range(rows * columns)))

    def first_column(matrix, values):
        matrix[0::WIDTH] = array("f", values)
        return matrix

    size = len(biases)
    yield "token_embd.weight", (WIDTH, size), first_column(noise(size, WIDTH, 1.0), [CONSTANT] * size)
    yield "output_norm.weight", (WIDTH,), array("f", [1.0] * WIDTH)
    yield "output.weight", (WIDTH, size), first_column(noise(size, WIDTH, 0.3), biases)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            yield f"{block}{norm}.weight", (WIDTH,), array("f", [1.0] * WIDTH)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{block}{part}.weight", (WIDTH, WIDTH), noise(WIDTH, WIDTH, 0.1)
        for part in ("ffn_gate", "ffn_up"):
            yield f"{block}{part}.weight", (WIDTH, HIDDEN), noise(HIDDEN, WIDTH, 0.1)
        yield f"{block}ffn_down.weight", (HIDDEN, WIDTH), noise(WIDTH, HIDDEN, 0.1)


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


# GGUF's number for each value type, and how one is written.
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
WRITE = {
    U32: lambda value: struct.pack("<I", value),
    I32: lambda value: struct.pack("<i", value),
    F32: lambda value: struct.pack("<f", value),
    BOOL: lambda value: struct.pack("<?", value),
    STRING: string,
}


def entry(key, kind, value):
    head = string(key)
    if isinstance(value, list):
        body = b"".join(map(WRITE[kind], value))
        return head + struct.pack("<IIQ", ARRAY, kind, len(value)) + body
    return head + struct.pack("<I", kind) + WRITE[kind](value)


def metadata(texts, types):
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "tiny-random"),
        entry("general.file_type", U32, 0),  # all F32
        entry("llama.vocab_size", U32, len(texts)),
        entry("llama.context_length", U32, CONTEXT),
        entry("llama.embedding_length", U32, WIDTH),
        entry("llama.block_count", U32, LAYERS),
        entry("llama.feed_forward_length", U32, HIDDEN),
        entry("llama.rope.dimension_count", U32, WIDTH // HEADS),
        entry("llama.attention.head_count", U32, HEADS),
        entry("llama.attention.head_count_kv", U32, HEADS),
        entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.pre", STRING, "default"),
        entry("tokenizer.ggml.tokens", STRING, texts),
        entry("tokenizer.ggml.scores", F32, [0.0] * len(texts)),
        entry("tokenizer.ggml.token_type", I32, types),
        entry("tokenizer.ggml.unknown_token_id", U32, texts.index("<unk>")),
        entry("tokenizer.ggml.bos_token_id", U32, texts.index("<s>")),
        entry("tokenizer.ggml.eos_token_id", U32, texts.index("</s>")),
        entry("tokenizer.ggml.add_bos_token", BOOL, True),
        entry("tokenizer.ggml.add_space_prefix", BOOL, False),
    ]


def padding(length, alignment=32):
    return b"\0" * (-length % alignment)


def main(path):
    texts, types, biases = map(list, zip(*vocabulary()))
    weights = list(tensors(biases))
    settings = metadata(texts, types)

    head = [b"GGUF", struct.pack("<IQQ", 3, len(weights), len(settings)), *settings]
    data = b""
    for name, dimensions, values in weights:
        head.append(string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, 0, len(data)))
        blob = values.tobytes()
        data += blob + padding(len(blob))

    header = b"".join(head)
    with open(path, "wb") as out:
        out.write(header + padding(len(header)) + data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
