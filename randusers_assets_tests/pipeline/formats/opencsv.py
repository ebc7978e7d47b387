"""How OpenCSVSerde reads a line, as Hive and Athena's engine do: quotes and an escape character."""


def read_line(line: str, escape: str) -> list[str]:
    """The cells of a line without its end; the last one is left out if its quote is not closed."""
    cells, cell = list[str](), ""
    quoted = inside = False
    at = 0
    while at < len(line):
        char, after = line[at], line[at + 1 : at + 2]
        if char == escape:
            if (quoted or inside) and after and after in f'"{escape}':
                cell += after
                at += 1
        elif char == '"':
            if (quoted or inside) and after == '"':
                cell += after
                at += 1
            else:
                # Any other quote inside a cell is a character of it, but not at the line's start.
                if at > 2 and line[at - 1] != "," and after not in ("", ","):
                    cell = "" if cell.isspace() else cell + char
                quoted = not quoted
            inside = not inside
        elif char == "," and not quoted:
            cells.append(cell)
            cell, inside = "", False
        else:
            cell += char
            inside = True
        at += 1
    return cells if quoted else [*cells, cell]
