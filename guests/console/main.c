/* The console ring: more text than it holds, long lines, empty lines, all of it in order. */
#include "guest.h"

const char guest_name[] = "console";

void guest_main(void)
{
    printf("an empty line follows\n\n");
    for (int i = 0; i < 120; i++)
        printf("line %03d of a text that is several times as long as the ring: %064d\n", i, i);
    for (int i = 0; i < 40; i++)
        printf("%c", 'a' + i % 26);
    printf("\n");
    char letters[400];
    for (u64 i = 0; i < sizeof(letters); i++)
        letters[i] = (char)('0' + i % 10);
    console_write(letters, sizeof(letters));
    console_write("\n", 1);
    console_write("", 0);
    printf("formats: %d %u %x %05d %5d|%-6s|%6s|%c%%\n", -42, 42U, 0xbeefU, 42, -7, "left", "right", 'c');
}
